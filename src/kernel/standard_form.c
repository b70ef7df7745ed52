/* One sample of a batch as a scaled program, and the answer in the units of the data. */
#include "program.h"

static const double DIVERGED = 1e150;
/* Bounds this close, relative to their size, are equal but for rounding. */
static const double ROUNDING = 0x1p-50;

/* The factor of a row. One without an entry has no unit of its own: its rates give one, or its
   bounds. */
static double row_factor(const Batch *sample, long j)
{
    const double *bound = sample->bound + j, *rate = sample->rate + j;
    if (sample->row_size[j] > 0)
        return sample->row[j];
    double unit = larger(rate[0], rate[sample->n]);
    if (!(unit > 0))
        unit = larger(finite_size(bound[0]), finite_size(bound[sample->n]));
    return 1 / power_of_two(unit);
}

static void clear(Program *program, const Batch *sample, long count)
{
    long m = pad_rows(program->index, count, sample->n), sides = sides_of(m, sample->k);
    program->m = m, program->sides = sides;
    program->shared = sample->slack == SHARED;
    program->size = program->k + program->shared;
    program->elastic_sides = sample->slack == OWN ? 2 * m : 0;
    program->pairs = sides + program->elastic_sides;
    program->elastic = program->present + sides;
    program->table = sample->table;
    for (double **array = &program->present; array <= &program->cost; array++)
        fill(*array, program->pairs, 0.0);
}

/* Where the two lines of a row's cost under l1 meet or cross, at a*, they are one elastic side and
   a term:

       max(0, (a* - a) / low, (a - a*) / up)  =  (1/up + 1/low) (a - a*)+  -  (a - a*) / low,

   so that the row has one dual variable in [-1/low, 1/up], not two. */
static void merge_sides(const Batch *sample, long i, double scale, const double bound[2],
                        const double rate[2], Program *program)
{
    const double *entry = sample->table + program->index[i] * sample->stride;
    double met = (bound[0] * rate[1] - bound[1] * rate[0]) / (rate[0] + rate[1]);
    program->present[i] = program->elastic[i] = 1;
    program->bound[i] = (bound[0] + bound[1] == 0 ? bound[0] : met) * scale;
    program->penalty[i] = (1 / rate[0] + 1 / rate[1]) / scale;
    for (long a = 0; a < sample->k; a++)
        program->cost[a] -= entry[a] / (rate[1] * scale);
}

static void write_row(const Batch *sample, long i, Program *program)
{
    long j = program->index[i], n = sample->n;
    double bound[2] = {sample->bound[j], sample->bound[n + j]}, scale = row_factor(sample, j);
    double rate[2] = {sample->rate[j], sample->rate[n + j]}, rates = rate[0] + rate[1];
    /* A row true whatever z is: between equal bounds it would have no interior. */
    if (sample->row_size[j] == 0 && bound[0] >= 0 && bound[1] >= 0 && rates == 0)
        return;
    program->equation[i] = bound[0] < INFINITE && bound[1] < INFINITE;
    double size = larger(fabs(bound[0]), fabs(bound[1]));
    if (sample->slack == OWN && program->equation[i] > 0 && rate[0] > 0 && rate[1] > 0 &&
        bound[0] + bound[1] <= ROUNDING * size) {
        merge_sides(sample, i, scale, bound, rate, program);
        return;
    }
    for (int side = 0; side < 2; side++) {
        long to = side * program->m + i;
        if (!(bound[side] < INFINITE))
            continue;
        program->present[to] = 1;
        program->bound[to] = bound[side] * scale;
        if (sample->slack == SHARED)
            program->rate[to] = rate[side] * scale;
        if (sample->slack == OWN && rate[side] > 0) {
            program->elastic[to] = 1;
            program->penalty[to] = 1 / (rate[side] * scale);
        }
    }
}

/* Write a sample in standard form on `count` of its rows; scaled so that the largest bound of a
   row, rate and cost are near 1. */
void standard_form(const Batch *sample, const int32_t *rows, long count, Program *program)
{
    memmove(program->index, rows, sizeof(int32_t) * (size_t)count);
    clear(program, sample, count);
    long m = program->m, k = program->k;
    double *h = program->bound, *on = program->present, *cost = program->cost;
    for (long a = 0; a < k; a++)
        cost[a] = sample->objective[a] * sample->column[a];
    for (long i = 0; i < count; i++)
        write_row(sample, i, program);
    if (program->shared) {
        cost[k] = 1 / power_of_two(largest(program->rate, 2 * m));
        for (long i = 0; i < 2 * m; i++)
            program->rate[i] *= cost[k];
        on[2 * m + 2 * k] = program->rate[2 * m + 2 * k] = 1;
    }
    program->unit = power_of_two(largest(h, 2 * m));
    program->price = power_of_two(larger(largest(cost, k + 1), largest(program->penalty, 2 * m)));
    for (long i = 0; i < 2 * m; i++) {
        h[i] /= program->unit;
        program->penalty[i] /= program->price;
    }
    for (long a = 0; a <= k; a++)
        cost[a] /= program->price;
    for (long i = 0; i < 2 * k; i++)
        if (sample->box[i] < INFINITE) {
            on[2 * m + i] = 1;
            h[2 * m + i] = sample->box[i] / (sample->column[i % k] * program->unit);
        }
}

/* The multipliers of both sides of a merged row, from the one of the program, which counts from the
   lower side's penalty: y_0 - y_1 = net, y_0 rate_0 + y_1 rate_1 <= 1, = 1 where they cross. */
static void separate_sides(const double bound[2], const double rate[2], double y[2])
{
    double net = y[0] - 1 / rate[1], both = (1 - net * rate[0]) / (rate[0] + rate[1]);
    y[1] = bound[0] + bound[1] < 0 ? both : larger(-net, 0.0);
    y[0] = larger(net + y[1], 0.0);
}

/* Whether all are numbers, and none has diverged. */
static int are_settled(const double *array, long count)
{
    int settled = 1;
    for (long i = 0; i < count; i++)
        settled &= is_finite(array[i]) && fabs(array[i]) < DIVERGED;
    return settled;
}

/* Write z and the multipliers in the units of the data; 0 where the numbers are none. */
void restore(const Batch *sample, const Program *program, const Point *at, long count)
{
    long n = sample->n, k = sample->k;
    double *z = sample->z, *multiplier = sample->multiplier;
    fill(multiplier, 2 * n, 0.0);
    for (long a = 0; a < k; a++)
        z[a] = at->v[a] * sample->column[a] * program->unit;
    for (long i = 0; i < count; i++) {
        long j = program->index[i], other = program->m + i;
        double scale = row_factor(sample, j) * program->price;
        double bound[2] = {sample->bound[j], sample->bound[n + j]};
        double rate[2] = {sample->rate[j], sample->rate[n + j]};
        double y[2] = {at->y[i] * scale, at->y[other] * scale};
        if (sample->slack == OWN && program->equation[i] > program->present[other])
            separate_sides(bound, rate, y);
        multiplier[j] = y[0], multiplier[n + j] = y[1];
    }
    if (!are_settled(z, k) || !are_settled(multiplier, 2 * n)) {
        fill(z, k, 0.0);
        fill(multiplier, 2 * n, 0.0);
    }
    for (long a = 0; a < k; a++)
        z[a] = larger(smaller(z[a], sample->box[a]), -sample->box[k + a]);
}
