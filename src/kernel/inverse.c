/* Diagonals of the inverses of symmetric positive definite matrices: variances of least squares. */
#include "kernel.h"

static const double NO_PIVOT = 1e-14;

typedef struct {
    int64_t batch, k, threads;
    const double *gram; /* (batch, k, k) */
    double *diagonal;   /* (batch, k) of the inverse, of the matrix scaled to unit diagonal */
    int64_t *positive;  /* (batch,) 1 where the matrix was factored, and `diagonal` written */
} Inverses;

/* G = U' U, so that (G^-1)_aa is the sum of squares of column a of U'^-1. */
static void invert_sample(const void *context, long b, Arena *arena)
{
    const Inverses *inverses = context;
    long k = inverses->k, stride = row_stride(k);
    double *scale = take_doubles(arena, stride), *inverse_pivot = take_doubles(arena, stride);
    Square factor = take_square(arena, k, stride), inverse = take_square(arena, k, stride);
    if (!arena->base)
        return;
    const double *gram = inverses->gram + b * k * k;
    inverses->positive[b] = 0;
    for (long a = 0; a < k; a++) {
        double square = gram[a * (k + 1)];
        if (!(square > 0) || !is_finite(square))
            return;
        scale[a] = 1.0 / sqrt(square);
    }
    load_scaled(gram, k, scale, 1.0, factor);
    if (!(cholesky(factor, k, NO_PIVOT, inverse_pivot) > NO_PIVOT))
        return;
    invert_factor(factor, inverse_pivot, inverse);
    double *diagonal = inverses->diagonal + b * k;
    fill(diagonal, k, 0.0);
    for (long i = 0; i < k; i++)
        for (long a = 0; a <= i; a++) {
            double entry = inverse.entry[i * stride + a];
            diagonal[a] += entry * entry;
        }
    inverses->positive[b] = 1;
}

/* Invert every matrix. */
EXPORT int invert_diagonals(const Inverses *inverses)
{
    return parallel_for(inverses->batch, inverses->threads, invert_sample, inverses);
}
