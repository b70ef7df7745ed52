/* Linear equations w_j z = t_j, on some rows of one matrix, other rows for each sample: normal
   equations, refined with the residual of the equations themselves. */
#include "program.h"

/* What Python hands over, and gets back; the matrix as in program.h. */
typedef struct {
    int64_t batch, n, k, stride, threads;
    const double *table, *row, *column;
    const double *scale;  /* (batch, n) factors of the equations; 0 where there is none */
    const double *target; /* (batch, n), or NULL: only `sure` is wanted */
    double *z;            /* (batch, k), written where sure */
    int64_t *sure;        /* (batch,) 1 where the columns are certainly independent */
} Equations;

/* The smallest pivot, relative to its diagonal entry, that leaves no doubt about the rank. The
   condition number is then about 3e3 at most, and two refinements reach rounding error; one, above
   the second. */
static const double SURE = 1e-7, EASY = 1e-6, NO_PIVOT = 1e-14;

static void solve_sample(const void *context, long b, Arena *arena)
{
    const Equations *equations = context;
    long n = equations->n, k = equations->k, stride = equations->stride, count = 0;
    double *panel = take_doubles(arena, PANEL * stride);
    double *inverse_pivot = take_doubles(arena, stride);
    double *v = take_doubles(arena, stride), *step = take_doubles(arena, stride);
    double *factor = take_doubles(arena, n + 1), *miss = take_doubles(arena, round_up(n, 8));
    Square matrix = take_square(arena, k, stride);
    int32_t *index = take(arena, round_up(n, 8) + 1, sizeof(int32_t));
    if (!arena->base)
        return;
    const double *scale = equations->scale + b * n, *target = equations->target;
    for (long j = 0; j < n; j++) { /* list the equations, and the factors of their scaled rows */
        index[count] = (int32_t)j;
        factor[count] = scale[j] / equations->row[j];
        count += scale[j] != 0;
    }
    equations->sure[b] = 0;
    if (count < k)
        return;
    Program rows = {.m = pad_rows(index, count, n), .k = k, .stride = stride, .index = index,
                    .table = equations->table}; /* the products with W only */
    memset(matrix.entry, 0, sizeof(double) * (size_t)(matrix.size * stride));
    add_scaled_gram(rows.table, index, factor, NULL, k, count, panel, matrix);
    for (long a = k; a < matrix.size; a++)
        matrix.entry[a * (stride + 1)] = 1.0;
    double least = cholesky(matrix, k, NO_PIVOT, inverse_pivot);
    equations->sure[b] = least > SURE;
    if (!equations->sure[b] || !target)
        return;
    fill(v, stride, 0.0);
    /* v += (A' A)^-1 A' (factor t - A v), where A is the rows times their factors. */
    for (int rounds = least > EASY ? 2 : 3; rounds > 0; rounds--) {
        rows_times(&rows, v, miss);
        for (long i = 0; i < count; i++) {
            double wanted = target[b * n + index[i]] * equations->row[index[i]];
            miss[i] = (wanted - miss[i]) * factor[i] * factor[i];
        }
        rows_transposed_times(&rows, miss, step);
        solve_factored(matrix, inverse_pivot, step);
        for (long a = 0; a < k; a++)
            v[a] += step[a];
    }
    for (long a = 0; a < k; a++)
        equations->z[b * k + a] = v[a] * equations->column[a];
}

/* Solve the equations of every sample. */
EXPORT int solve_equations(const Equations *equations)
{
    return parallel_for(equations->batch, equations->threads, solve_sample, equations);
}
