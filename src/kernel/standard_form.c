/* One sample of a batch as a scaled program, and the answer in the units of the data. */
#include "program.h"

static const double DIVERGED = 1e150;
/* Bounds this close, relative to their size, are equal but for rounding. */
static const double ROUNDING = 0x1p-50;

/* The factor of a row. One without an entry has no unit of its own: its rates give one, or its
   bounds. */
static double row_factor(const Batch *sample, long j)
{
    if (sample->row_size[j] > 0)
        return sample->row[j];
    double low = fabs(sample->lower[j]), high = fabs(sample->upper[j]);
    double rate = larger(sample->lower_rate[j], sample->upper_rate[j]);
    double bound = larger(low < INFINITE ? low : 0, high < INFINITE ? high : 0);
    return 1 / power_of_two(rate > 0 ? rate : bound);
}

static void clear(Program *program, const Batch *sample, long count)
{
    long m = round_up(count, 8), sides = round_up(2 * m + 2 * sample->k + 1, 8);
    program->m = m, program->sides = sides;
    program->shared = sample->slack == SHARED;
    program->elastic_sides = sample->slack == OWN ? 2 * m : 0;
    program->table = sample->table;
    for (long i = count; i < m; i++)
        program->index[i] = (int32_t)sample->n; /* the row of padding */
    double *of_rows[] = {program->upper_rate, program->lower_rate, program->equation};
    for (int i = 0; i < 3; i++)
        fill(of_rows[i], m, 0.0);
    double *of_sides[] = {program->bound, program->present, program->elastic, program->penalty};
    for (int i = 0; i < 4; i++)
        fill(of_sides[i], sides, 0.0);
    fill(program->cost, program->stride, 0.0);
}

/* Where the two lines of a row's cost under l1 meet or cross, at a*, they are one elastic side and a term:

       max(0, (a* - a) / low, (a - a*) / up)  =  (1/up + 1/low) (a - a*)+  -  (a - a*) / low,

   so that the row has one dual variable in [-1/low, 1/up], not two. */
static void merge_sides(const Batch *sample, long i, double scale, double crossing,
                        Program *program)
{
    long j = program->index[i];
    double up = sample->upper_rate[j], low = sample->lower_rate[j];
    const double *entry = sample->table + j * sample->stride;
    program->present[i] = program->elastic[i] = 1;
    program->bound[i] = crossing * scale;
    program->penalty[i] = (1 / up + 1 / low) / scale;
    for (long a = 0; a < sample->k; a++)
        program->cost[a] -= entry[a] / (low * scale);
}

/* One side of a row: `to` says which. */
static void write_side(const Batch *sample, long to, double bound, double rate, double scale,
                       Program *program)
{
    program->present[to] = 1;
    program->bound[to] = bound * scale;
    if (sample->slack == OWN && rate > 0) {
        program->elastic[to] = 1;
        program->penalty[to] = 1 / (rate * scale);
    }
}

static void write_row(const Batch *sample, long i, Program *program)
{
    long j = program->index[i];
    double scale = row_factor(sample, j), upper = sample->upper[j], lower = sample->lower[j];
    double up = sample->upper_rate[j], low = sample->lower_rate[j];
    int above = upper < INFINITE, below = lower > -INFINITE;
    /* A row true whatever z is: between equal bounds it would have no interior. */
    if (sample->row_size[j] == 0 && lower <= 0 && upper >= 0 && up + low == 0)
        return;
    program->equation[i] = above && below;
    double size = above && below ? larger(fabs(lower), fabs(upper)) : 0;
    if (sample->slack == OWN && upper - lower <= ROUNDING * size && up + low > 0) {
        lower = upper = lower == upper ? upper : (lower * up + upper * low) / (up + low);
        if (up > 0 && low > 0) {
            merge_sides(sample, i, scale, upper, program);
            return;
        }
    }
    if (above)
        write_side(sample, i, upper, up, scale, program);
    if (below)
        write_side(sample, program->m + i, -lower, low, scale, program);
    if (sample->slack == SHARED) {
        program->upper_rate[i] = above ? up * scale : 0;
        program->lower_rate[i] = below ? low * scale : 0;
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
        double rate = larger(largest(program->upper_rate, m), largest(program->lower_rate, m));
        cost[k] = 1 / power_of_two(rate);
        on[2 * m + 2 * k] = 1;
        for (long i = 0; i < m; i++) {
            program->upper_rate[i] *= cost[k];
            program->lower_rate[i] *= cost[k];
        }
    }
    program->unit = power_of_two(largest(h, 2 * m));
    program->price = power_of_two(larger(largest(cost, k + 1), largest(program->penalty, 2 * m)));
    for (long i = 0; i < 2 * m; i++) {
        h[i] /= program->unit;
        program->penalty[i] /= program->price;
    }
    for (long a = 0; a <= k; a++)
        cost[a] /= program->price;
    for (long a = 0; a < k; a++) {
        double unit = sample->column[a] * program->unit;
        if (sample->high[a] < INFINITE)
            on[2 * m + a] = 1, h[2 * m + a] = sample->high[a] / unit;
        if (sample->low[a] > -INFINITE)
            on[2 * m + k + a] = 1, h[2 * m + k + a] = -sample->low[a] / unit;
    }
}

/* The multipliers of both sides of a row whose lines cross, from those of the program. */
static void separate_sides(const Batch *sample, long j, int merged, double *up, double *down)
{
    double up_rate = sample->upper_rate[j], low_rate = sample->lower_rate[j];
    int crossed = sample->lower[j] > sample->upper[j];
    if (merged) {
        /* One multiplier, which counts from the lower side's penalty:
           up - down = net, up up_rate + down low_rate <= 1, = 1 where they cross. */
        double net = *up - 1 / low_rate;
        double both = (1 - net * up_rate) / (up_rate + low_rate);
        *down = crossed ? both : larger(-net, 0.0);
        *up = larger(net + *down, 0.0);
    } else if (crossed && up_rate > 0) {
        *down += 1 / up_rate - *up;
        *up = 1 / up_rate;
    } else if (crossed && low_rate > 0) {
        *up += 1 / low_rate - *down;
        *down = 1 / low_rate;
    }
}

/* Write z and the multipliers in the units of the data; 0 where the numbers are none. */
void restore(const Batch *sample, const Program *program, const Point *at, long count)
{
    long m = program->m;
    int good = 1;
    fill(sample->dual_upper, sample->n, 0.0);
    fill(sample->dual_lower, sample->n, 0.0);
    for (long a = 0; a < sample->k; a++) {
        double value = at->v[a] * sample->column[a] * program->unit;
        good = good && is_finite(value) && fabs(value) < DIVERGED;
        sample->z[a] = larger(smaller(value, sample->high[a]), sample->low[a]);
    }
    for (long i = 0; i < count; i++) {
        long j = program->index[i];
        double scale = row_factor(sample, j) * program->price;
        double up = at->y[i] * scale, down = at->y[m + i] * scale;
        if (sample->slack == OWN && program->equation[i] > 0)
            separate_sides(sample, j, program->present[m + i] == 0, &up, &down);
        good = good && is_finite(up) && is_finite(down) && larger(fabs(up), fabs(down)) < DIVERGED;
        sample->dual_upper[j] = up, sample->dual_lower[j] = down;
    }
    if (good)
        return;
    for (long a = 0; a < sample->k; a++)
        sample->z[a] = larger(smaller(0.0, sample->high[a]), sample->low[a]);
    fill(sample->dual_upper, sample->n, 0.0);
    fill(sample->dual_lower, sample->n, 0.0);
}
