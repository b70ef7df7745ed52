/* Layer programs of a batch: each to standard form, solved, and proven. */
#include "program.h"

/* Everything that one thread needs. */
typedef struct {
    Program program;
    Point at, step;
    Workspace work;
    int32_t *every, *picked; /* lists of rows */
} Solver;

static Point new_point(Arena *arena, long sides, long stride)
{
    return (Point){take_doubles(arena, stride), take_doubles(arena, sides),
                   take_doubles(arena, sides), take_doubles(arena, sides),
                   take_doubles(arena, sides)};
}

/* Lay a solver out in memory; returns the bytes of it. */
static size_t lay_out(Solver *solver, const Batch *batch, char *memory)
{
    Arena arena = {memory, 0};
    long m = round_up(batch->n, 8), sides = round_up(2 * m + 2 * batch->k + 1, 8);
    long stride = batch->stride, size = padded_size(batch->k + 1);
    Program *program = &solver->program;
    Workspace *work = &solver->work;
    double **of_rows[] = {&program->upper_rate, &program->lower_rate, &program->equation,
                          &work->image, &work->scale, &work->border,
                          &work->face_upper_rate, &work->face_lower_rate};
    double **of_sides[] = {&program->bound, &program->present, &program->elastic,
                           &program->penalty, &work->product, &work->step_product, &work->weight,
                           &work->inverse_s, &work->inverse_y, &work->inverse_t, &work->ratio_y,
                           &work->ratio_t, &work->push_s, &work->push_p, &work->rho, &work->x,
                           &work->kind, &work->face_weight, &work->best_y};
    double **of_columns[] = {&program->cost, &work->gradient, &work->affine, &work->constant, &work->pull,
                             &work->inverse_pivot, &work->best_v};
    int32_t **lists[] = {&program->index, &work->kept, &work->face_index, &solver->every,
                        &solver->picked};
    *program = (Program){.k = batch->k, .stride = stride, .first = batch->first,
                         .place = batch->place};
    for (size_t i = 0; i < sizeof of_rows / sizeof *of_rows; i++)
        *of_rows[i] = take_doubles(&arena, m);
    for (size_t i = 0; i < sizeof of_sides / sizeof *of_sides; i++)
        *of_sides[i] = take_doubles(&arena, sides);
    for (size_t i = 0; i < sizeof of_columns / sizeof *of_columns; i++)
        *of_columns[i] = take_doubles(&arena, stride);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        *lists[i] = take(&arena, sizeof(int32_t) * (size_t)(m + 1));
    solver->at = new_point(&arena, sides, stride);
    solver->step = new_point(&arena, sides, stride);
    work->panel = take_doubles(&arena, PANEL * stride);
    work->matrix = (Square){take_doubles(&arena, size * stride), size, stride};
    work->gram = (Square){take_doubles(&arena, size * stride), size, stride};
    return arena.used;
}

/* The batch that sample b is by itself. */
static Batch sample_of(const Batch *batch, long b)
{
    Batch one = *batch;
    long n = batch->n, k = batch->k, which = batch->matrices == 1 ? 0 : b;
    one.batch = one.matrices = 1;
    one.table += which * (n + 1) * batch->stride;
    const double **of_matrix_rows[] = {&one.row, &one.row_size};
    const double **of_matrix_columns[] = {&one.column, &one.column_size};
    const double **of_rows[] = {&one.lower, &one.lower_rate, &one.upper, &one.upper_rate};
    const double **of_columns[] = {&one.low, &one.high, &one.objective};
    for (int i = 0; i < 2; i++) {
        *of_matrix_rows[i] += which * n;
        *of_matrix_columns[i] += which * k;
    }
    for (int i = 0; i < 4; i++)
        *of_rows[i] += b * n;
    for (int i = 0; i < 3; i++)
        *of_columns[i] += b * k;
    one.z += b * k;
    one.dual_lower += b * n, one.dual_upper += b * n;
    one.proven += b, one.full += b, one.steps += b;
    return one;
}

/* At an l-infinity optimum k + 1 of up to 2 n sides bind, and the start knows which are far from
   it: rows whose weight there is below FAR times the (k + 1)-th largest. The others are solved
   alone, if they are fewer than WORTH, and the answer is checked on all rows. It must be exact. */
static const double FAR = 0x1p-4, WORTH = 0.8, EXACT = 1e-11;

/* List the rows that may bind; their number, 0 if that is no use. */
static long pick_rows(Solver *solver, long n)
{
    const Program *program = &solver->program;
    const double *weight = solver->work.weight;
    long m = program->m, picked = 0;
    set_weights(program, &solver->at, &solver->work);
    double least = FAR * large_weight(weight, program->sides, program->k + 1);
    for (long j = 0; j < n; j++) {
        solver->picked[picked] = (int32_t)j;
        picked += larger(weight[j], weight[m + j]) >= least;
    }
    return (double)picked < WORTH * (double)n ? picked : 0;
}

static int solve_from(const Batch *sample, Solver *solver, long count, double tolerance)
{
    Program *program = &solver->program;
    minimise(program, &solver->at, &solver->step, &solver->work, sample->steps);
    restore(sample, program, &solver->at, count);
    return prove(sample, program, solver->every, tolerance, &solver->work);
}

/* The program of all rows at its starting point; returns the margin of that. */
static double start(const Batch *sample, Solver *solver)
{
    Program *program = &solver->program;
    int linear = largest(sample->objective, sample->k) > 0;
    standard_form(sample, solver->every, sample->n, program);
    *sample->full = least_squares(program, &solver->work, solver->at.v);
    double margin = start_margin(program, linear, solver->at.v, &solver->work);
    centre(program, margin, &solver->work, &solver->at);
    return margin;
}

/* The program of the picked rows, at the same point. */
static void restrict_to(const Batch *sample, Solver *solver, long picked, double margin)
{
    Program *program = &solver->program;
    double unit = program->unit;
    standard_form(sample, solver->picked, picked, program);
    unit /= program->unit;
    for (long a = 0; a < program->k; a++)
        solver->at.v[a] *= unit;
    centre(program, unit * margin, &solver->work, &solver->at);
}

static void solve_sample(void *context, long b, void *memory)
{
    const Batch *batch = context;
    Batch sample = sample_of(batch, b);
    Solver solver;
    lay_out(&solver, batch, memory);
    for (long j = 0; j < round_up(sample.n, 8); j++)
        solver.every[j] = (int32_t)(j < sample.n ? j : sample.n);
    fill(solver.step.v, sample.stride, 0.0);
    *sample.steps = 0;
    double margin = start(&sample, &solver);
    long picked = sample.slack == SHARED ? pick_rows(&solver, sample.n) : 0;
    if (picked) {
        restrict_to(&sample, &solver, picked, margin);
        if (solve_from(&sample, &solver, picked, EXACT))
            return;
        start(&sample, &solver);
    }
    solve_from(&sample, &solver, sample.n, 1.0);
}

/* Minimise every program of a batch. Returns 0, or -1 without memory. */
EXPORT int solve_programs(const Batch *batch)
{
    Solver solver;
    return parallel_for(batch->batch, (int)batch->threads, lay_out(&solver, batch, NULL),
                        solve_sample, (void *)batch);
}

/* Asked for before anything else is called; see kernel.h. */
EXPORT int kernel_interface(void) { return INTERFACE; }
