/* Linear equations w_j z = t_j, on some rows of one matrix, other rows for each sample: normal
   equations, refined with the residual of the equations themselves. */
#include "kernel.h"

/* What Python hands over, and gets back; the matrix as in solve.c. */
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
enum { PANEL = 128 };

typedef struct {
    double *panel, *inverse_pivot, *v, *step, *factor;
    int32_t *index;
    Square matrix;
} Workspace;

static size_t lay_out(Workspace *work, const Equations *equations, char *memory)
{
    Arena arena = {memory, 0};
    long stride = equations->stride, size = padded_size(equations->k);
    work->panel = take_doubles(&arena, PANEL * stride);
    work->inverse_pivot = take_doubles(&arena, stride);
    work->v = take_doubles(&arena, stride);
    work->step = take_doubles(&arena, stride);
    work->factor = take_doubles(&arena, equations->n);
    work->index = take(&arena, sizeof(int32_t) * (size_t)equations->n);
    work->matrix = (Square){take_doubles(&arena, size * stride), size, stride};
    return arena.used;
}

/* step = A' (factor t - A v), where A is the rows times their factors. */
static void pull(const Equations *equations, const Workspace *work, long count,
                 const double *target, int first)
{
    long width = round_up(equations->k, LANES), stride = equations->stride;
    memset(work->step, 0, sizeof(double) * (size_t)stride);
    for (long i = 0; i < count; i++) {
        const double *row = equations->table + work->index[i] * stride;
        double miss = target[work->index[i]] * equations->row[work->index[i]];
        if (!first) {
            vector sum = {0};
            for (long a = 0; a < width; a += LANES)
                sum += load(row + a) * load(work->v + a);
            miss -= sum_of(sum);
        }
        miss *= work->factor[i] * work->factor[i];
        for (long a = 0; a < width; a += LANES)
            store(work->step + a, load(work->step + a) + miss * load(row + a));
    }
}

static void solve_sample(void *context, long b, void *memory)
{
    const Equations *equations = context;
    Workspace work;
    lay_out(&work, equations, memory);
    long n = equations->n, k = equations->k, stride = equations->stride, count = 0;
    long size = work.matrix.size;
    const double *scale = equations->scale + b * n;
    for (long j = 0; j < n; j++) {
        work.index[count] = (int32_t)j;
        work.factor[count] = scale[j] / equations->row[j];
        count += scale[j] != 0;
    }
    equations->sure[b] = 0;
    if (count < k)
        return;
    memset(work.matrix.entry, 0, sizeof(double) * (size_t)(size * stride));
    for (long first = 0; first < count; first += PANEL) {
        long some = count - first < PANEL ? count - first : PANEL;
        for (long i = 0; i < some; i++) {
            const double *row = equations->table + work.index[first + i] * stride;
            for (long a = 0; a < size; a++)
                work.panel[i * stride + a] = work.factor[first + i] * row[a];
        }
        add_gram(work.panel, some, work.matrix);
    }
    for (long a = k; a < size; a++)
        work.matrix.entry[a * stride + a] = 1.0;
    double least = cholesky(work.matrix, k, NO_PIVOT, work.inverse_pivot);
    equations->sure[b] = least > SURE;
    if (!equations->sure[b] || !equations->target)
        return;
    memset(work.v, 0, sizeof(double) * (size_t)stride);
    for (int i = 0; i < (least > EASY ? 2 : 3); i++) {
        pull(equations, &work, count, equations->target + b * n, i == 0);
        solve_factored(work.matrix, work.inverse_pivot, work.step);
        for (long a = 0; a < k; a++)
            work.v[a] += work.step[a];
    }
    for (long a = 0; a < k; a++)
        equations->z[b * k + a] = work.v[a] * equations->column[a];
}

/* Solve the equations of every sample. Returns 0, or -1 without memory. */
EXPORT int solve_equations(const Equations *equations)
{
    Workspace work;
    return parallel_for(equations->batch, (int)equations->threads,
                        lay_out(&work, equations, NULL), solve_sample, (void *)equations);
}
