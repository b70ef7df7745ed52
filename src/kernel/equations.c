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

typedef struct {
    Program rows; /* the products with W only */
    double *panel, *inverse_pivot, *v, *step, *factor, *image;
    Square matrix;
} System;

static size_t lay_out(System *system, const Equations *equations, char *memory)
{
    Arena arena = {memory, 0};
    long stride = equations->stride, size = padded_size(equations->k);
    long m = round_up(equations->n, 8);
    system->panel = take_doubles(&arena, PANEL * stride);
    system->inverse_pivot = take_doubles(&arena, stride);
    system->v = take_doubles(&arena, stride);
    system->step = take_doubles(&arena, stride);
    system->factor = take_doubles(&arena, m);
    system->image = take_doubles(&arena, m);
    system->matrix = (Square){take_doubles(&arena, size * stride), size, stride};
    system->rows = (Program){.k = equations->k, .stride = stride, .table = equations->table,
                             .index = take(&arena, sizeof(int32_t) * (size_t)m)};
    return arena.used;
}

/* List the equations of a sample, and the factors of their scaled rows; their number. */
static long list_equations(const Equations *equations, const double *scale, System *system)
{
    long count = 0;
    for (long j = 0; j < equations->n; j++) {
        system->rows.index[count] = (int32_t)j;
        system->factor[count] = scale[j] / equations->row[j];
        count += scale[j] != 0;
    }
    system->rows.m = round_up(count, 8);
    for (long i = count; i < system->rows.m; i++)
        system->rows.index[i] = (int32_t)equations->n; /* the row of padding */
    return count;
}

/* v += (A' A)^-1 A' (factor t - A v), where A is the rows times their factors. */
static void refine(const Equations *equations, const double *target, long count, System *system)
{
    double *miss = system->image;
    rows_times(&system->rows, system->v, miss);
    for (long i = 0; i < count; i++) {
        long j = system->rows.index[i];
        miss[i] = (target[j] * equations->row[j] - miss[i]) * system->factor[i] * system->factor[i];
    }
    rows_transposed_times(&system->rows, miss, system->step);
    solve_factored(system->matrix, system->inverse_pivot, system->step);
    for (long a = 0; a < equations->k; a++)
        system->v[a] += system->step[a];
}

static void solve_sample(void *context, long b, void *memory)
{
    const Equations *equations = context;
    System system;
    lay_out(&system, equations, memory);
    Square matrix = system.matrix;
    long k = equations->k;
    long count = list_equations(equations, equations->scale + b * equations->n, &system);
    equations->sure[b] = 0;
    if (count < k)
        return;
    memset(matrix.entry, 0, sizeof(double) * (size_t)(matrix.size * matrix.stride));
    add_scaled_gram(equations->table, system.rows.index, system.factor, NULL, k, count,
                    system.panel, matrix);
    for (long a = k; a < matrix.size; a++)
        matrix.entry[a * matrix.stride + a] = 1.0;
    double least = cholesky(matrix, k, NO_PIVOT, system.inverse_pivot);
    equations->sure[b] = least > SURE;
    if (!equations->sure[b] || !equations->target)
        return;
    fill(system.v, equations->stride, 0.0);
    for (int i = 0; i < (least > EASY ? 2 : 3); i++)
        refine(equations, equations->target + b * equations->n, count, &system);
    for (long a = 0; a < k; a++)
        equations->z[b * k + a] = system.v[a] * equations->column[a];
}

/* Solve the equations of every sample. Returns 0, or -1 without memory. */
EXPORT int solve_equations(const Equations *equations)
{
    System system;
    return parallel_for(equations->batch, (int)equations->threads,
                        lay_out(&system, equations, NULL), solve_sample, (void *)equations);
}
