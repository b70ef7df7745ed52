/* Layer programs of a batch: each to standard form, solved, and proven. */
#include "program.h"

/* Everything that one thread needs. */
typedef struct {
    Program program;
    Point at, step;
    Workspace work;
} Solver;

static void lay_out(Solver *solver, const Batch *batch, Arena *arena)
{
    long m = round_up(batch->n, 8), stride = batch->stride;
    long length = sides_of(m, batch->k) + 2 * m; /* of any array, for as many pairs */
    length = length > stride ? length : stride;
    *solver = (Solver){.program = {.k = batch->k, .stride = stride, .first = batch->first,
                                   .place = batch->place}};
    Program *program = &solver->program;
    Workspace *work = &solver->work;
    int32_t **lists[] = {&program->index, &work->kept, &work->face_index, &work->every,
                         &work->picked};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        *lists[i] = take(arena, m + 1, sizeof(int32_t));
    take_fields(arena, &program->present, sizeof *program - offsetof(Program, present), length);
    take_fields(arena, &solver->at, sizeof solver->at, length);
    take_fields(arena, &solver->step, sizeof solver->step, length);
    take_fields(arena, work, offsetof(Workspace, panel), length);
    work->panel = take_doubles(arena, PANEL * stride);
    work->matrix = take_square(arena, batch->k + 1, stride);
    work->gram = take_square(arena, batch->k + 1, stride);
}

/* The batch that sample b is by itself. */
static Batch sample_of(const Batch *batch, long b)
{
    Batch one = *batch;
    long n = batch->n, k = batch->k, which = batch->matrices == 1 ? 0 : b;
    one.batch = one.matrices = 1;
    one.table += which * (n + 1) * batch->stride;
    one.row += which * n, one.row_size += which * n;
    one.column += which * k, one.column_size += which * k;
    one.bound += 2 * b * n, one.rate += 2 * b * n, one.multiplier += 2 * b * n;
    one.box += 2 * b * k, one.objective += b * k, one.z += b * k;
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
        solver->work.picked[picked] = (int32_t)j;
        picked += larger(weight[j], weight[m + j]) >= least;
    }
    return (double)picked < WORTH * (double)n ? picked : 0;
}

static int solve_from(const Batch *sample, Solver *solver, long count, double tolerance)
{
    Program *program = &solver->program;
    minimise(program, &solver->at, &solver->step, &solver->work, sample->steps);
    restore(sample, program, &solver->at, count);
    return prove(sample, program, tolerance, &solver->work);
}

/* The program of all rows at its starting point; returns the margin of that. */
static double start(const Batch *sample, Solver *solver)
{
    Program *program = &solver->program;
    int linear = largest(sample->objective, sample->k) > 0;
    standard_form(sample, solver->work.every, sample->n, program);
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
    standard_form(sample, solver->work.picked, picked, program);
    unit /= program->unit;
    for (long a = 0; a < program->k; a++)
        solver->at.v[a] *= unit;
    centre(program, unit * margin, &solver->work, &solver->at);
}

static void solve_sample(const void *context, long b, Arena *arena)
{
    const Batch *batch = context;
    Solver solver;
    lay_out(&solver, batch, arena);
    if (!arena->base)
        return;
    Batch sample = sample_of(batch, b);
    for (long j = 0; j < sample.n; j++)
        solver.work.every[j] = (int32_t)j;
    pad_rows(solver.work.every, sample.n, sample.n);
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

/* Minimise every program of a batch. */
EXPORT int solve_programs(const Batch *batch)
{
    return parallel_for(batch->batch, batch->threads, solve_sample, batch);
}
