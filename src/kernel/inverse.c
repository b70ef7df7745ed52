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
    double *scale, *inverse_pivot, *sum;
    Square factor, inverse;
} Workspace;

static size_t lay_out(Workspace *work, long k, char *memory)
{
    Arena arena = {memory, 0};
    long size = padded_size(k), stride = row_stride(k);
    work->scale = take_doubles(&arena, stride);
    work->inverse_pivot = take_doubles(&arena, stride);
    work->sum = take_doubles(&arena, stride);
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

/* Row i of L = U'^-1, which is lower triangular: (e_i - sum_t<i u_ti L_t) / u_ii. */
static void substitute(const Workspace *work, long i)
{
    Square u = work->factor, inverse = work->inverse;
    double *row = inverse.entry + i * inverse.stride;
    memset(row, 0, sizeof(double) * (size_t)inverse.stride);
    row[i] = 1.0;
    long t = 0;
    for (; t + 4 <= i; t += 4) { /* what lies right of the diagonal of the other rows is 0 */
        const double *other = inverse.entry + t * inverse.stride;
        vector factor[4];
        for (int r = 0; r < 4; r++)
            factor[r] = spread(u.entry[(t + r) * u.stride + i]);
        for (long b = 0; b < t + 4; b += LANES) {
            vector sum = load(row + b);
            for (int r = 0; r < 4; r++)
                sum -= factor[r] * load(other + r * inverse.stride + b);
            store(row + b, sum);
        }
    }
    for (; t < i; t++)
        for (long b = 0; b <= t; b += LANES)
            store(row + b, load(row + b) - u.entry[t * u.stride + i] *
                                               load(inverse.entry + t * inverse.stride + b));
    for (long b = 0; b <= i; b += LANES) {
        vector scaled = load(row + b) * work->inverse_pivot[i];
        store(row + b, scaled);
        store(work->sum + b, load(work->sum + b) + scaled * scaled);
    }
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
    memset(work.sum, 0, sizeof(double) * (size_t)work.factor.stride);
    for (long i = 0; i < k; i++)
        substitute(&work, i);
    memcpy(inverses->diagonal + b * k, work.sum, sizeof(double) * (size_t)k);
    inverses->positive[b] = 1;
}

/* Invert every matrix. Returns 0, or -1 without memory. */
EXPORT int invert_diagonals(const Inverses *inverses)
{
    Workspace work;
    return parallel_for(inverses->batch, (int)inverses->threads,
                        lay_out(&work, inverses->k, NULL), invert_sample, (void *)inverses);
}
