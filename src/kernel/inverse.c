/* Diagonals of the inverses of symmetric positive definite matrices: variances of least squares. */
#include "kernel.h"

static const double NO_PIVOT = 1e-14;

typedef struct {
    int64_t batch, k, threads;
    const double *gram; /* (batch, k, k) */
    double *diagonal;   /* (batch, k) of the inverse, of the matrix scaled to unit diagonal */
    int64_t *positive;  /* (batch,) 1 where the matrix was factored, and `diagonal` written */
} Inverses;

typedef struct {
    double *scale, *inverse_pivot;
    Square factor, inverse;
} Workspace;

static size_t lay_out(Workspace *work, long k, char *memory)
{
    Arena arena = {memory, 0};
    long size = padded_size(k), stride = row_stride(k);
    work->scale = take_doubles(&arena, stride);
    work->inverse_pivot = take_doubles(&arena, stride);
    work->factor = (Square){take_doubles(&arena, size * stride), size, stride};
    work->inverse = (Square){take_doubles(&arena, size * stride), size, stride};
    return arena.used;
}

/* One over the roots of the diagonal. Returns 0 if that is not positive and finite. */
static int find_scale(const double *gram, long k, double *scale)
{
    for (long a = 0; a < k; a++) {
        double square = gram[a * k + a];
        if (!(square > 0) || !is_finite(square))
            return 0;
        scale[a] = 1.0 / sqrt(square);
    }
    return 1;
}

/* G = U' U, so that (G^-1)_aa is the sum of squares of column a of U'^-1. */
static void invert_sample(void *context, long b, void *memory)
{
    const Inverses *inverses = context;
    Workspace work;
    long k = inverses->k;
    lay_out(&work, k, memory);
    inverses->positive[b] = 0;
    const double *gram = inverses->gram + b * k * k;
    if (!find_scale(gram, k, work.scale))
        return;
    load_scaled(gram, k, work.scale, 1.0, work.factor);
    if (!(cholesky(work.factor, k, NO_PIVOT, work.inverse_pivot) > NO_PIVOT))
        return;
    invert_factor(work.factor, work.inverse_pivot, work.inverse);
    double *diagonal = inverses->diagonal + b * k;
    fill(diagonal, k, 0.0);
    for (long i = 0; i < k; i++) {
        const double *row = work.inverse.entry + i * work.inverse.stride;
        for (long a = 0; a <= i; a++)
            diagonal[a] += row[a] * row[a];
    }
    inverses->positive[b] = 1;
}

/* Invert every matrix. Returns 0, or -1 without memory. */
EXPORT int invert_diagonals(const Inverses *inverses)
{
    Workspace work;
    return parallel_for(inverses->batch, (int)inverses->threads,
                        lay_out(&work, inverses->k, NULL), invert_sample, (void *)inverses);
}
