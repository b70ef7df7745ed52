/* Layer programs of a batch: from the caller's arrays to standard form, solved, and proven. */
#include "program.h"

/* What Python hands over, and gets back. Arrays are C-contiguous. A matrix is `table` (n + 1,
   stride), w_ja row_j column_a with row and column powers of two, 0 elsewhere. */
typedef struct {
    int64_t batch, n, k, stride;
    int64_t matrices; /* 1 for the whole batch, or one a sample */
    int64_t slack, threads;
    const double *table, *row, *column;
    const int32_t *first, *place; /* where each row's entries are, row by row; or NULL */
    const double *row_size, *column_size; /* |w_ja| <= row_size_j column_size_a; 0 if empty */
    const double *lower, *lower_rate, *upper, *upper_rate; /* (batch, n) */
    const double *low, *high, *objective;                  /* (batch, k) */
    double *z;                                             /* (batch, k) */
    double *dual_lower, *dual_upper;                       /* (batch, n) */
    double *slack_needed, *value;                          /* (batch,) at z */
    int64_t *proven; /* (batch,) 1 where the multipliers prove that z is an optimum */
    int64_t *steps;  /* (batch,) */
} Batch;

/* Everything that one thread needs. */
typedef struct {
    Rows rows, part_rows;
    Sides sides, part_sides;
    Point at, part_at, step, other;
    Workspace work;
    int32_t *picked;
    double unit, price; /* of the bounds and of the costs */
} Solver;

static const double INFINITE = 1e300; /* what stands for infinity: bounds of at least this size */
static const double DIVERGED = 1e150;

static Sides new_sides(Arena *arena, long m, long sides, long stride)
{
    Sides made = {
        .bound = take_doubles(arena, sides),   .present = take_doubles(arena, sides),
        .elastic = take_doubles(arena, sides), .penalty = take_doubles(arena, sides),
        .cost = take_doubles(arena, stride),   .equation = take_doubles(arena, m),
    };
    return made;
}

static Point new_point(Arena *arena, long sides, long stride)
{
    Point made = {take_doubles(arena, stride), take_doubles(arena, sides),
                  take_doubles(arena, sides), take_doubles(arena, sides),
                  take_doubles(arena, sides)};
    return made;
}

static Rows new_rows(Arena *arena, const Batch *batch, long m)
{
    long sides = round_up(2 * m + 2 * batch->k + 1, 8);
    Rows made = {.first = batch->first, .place = batch->place, .stride = batch->stride, .m = m, .k = batch->k, .sides = sides,
                 .shared = batch->slack == SHARED, .elastic = batch->slack == OWN ? 2 * m : 0};
    made.index = take(arena, sizeof(int32_t) * (size_t)m);
    made.upper_rate = take_doubles(arena, m);
    made.lower_rate = take_doubles(arena, m);
    return made;
}

/* Lay a solver out in memory; returns the bytes of it. */
static size_t lay_out(Solver *solver, const Batch *batch, char *memory)
{
    Arena arena = {memory, 0};
    long m = round_up(batch->n, 8), stride = batch->stride;
    solver->rows = new_rows(&arena, batch, m);
    solver->part_rows = new_rows(&arena, batch, m);
    long sides = solver->rows.sides, size = padded_size(batch->k + 1), tail = 2 * batch->k + 1;
    solver->sides = new_sides(&arena, m, sides, stride);
    solver->part_sides = new_sides(&arena, m, sides, stride);
    solver->at = new_point(&arena, sides, stride);
    solver->part_at = new_point(&arena, sides, stride);
    solver->step = new_point(&arena, sides, stride);
    solver->other = new_point(&arena, sides, stride);
    solver->picked = take(&arena, sizeof(int32_t) * (size_t)m);
    Workspace *work = &solver->work;
    double **of_sides[] = {&work->product, &work->step_product, &work->weight,  &work->inverse_s,
                           &work->inverse_y, &work->inverse_t,  &work->ratio_y, &work->ratio_t,
                           &work->push_s,  &work->push_p,       &work->kind,    &work->rho,
                           &work->x,      &work->best_y};
    for (size_t i = 0; i < sizeof of_sides / sizeof *of_sides; i++)
        *of_sides[i] = take_doubles(&arena, sides);
    double **of_columns[] = {&work->gradient, &work->affine, &work->constant, &work->pull,
                             &work->inverse_pivot, &work->best_v};
    for (size_t i = 0; i < sizeof of_columns / sizeof *of_columns; i++)
        *of_columns[i] = take_doubles(&arena, stride);
    double **of_face[] = {&work->face_sign, &work->face_rate, &work->face_y, &work->face_weight,
                          &work->face_bound, &work->face_product};
    for (size_t i = 0; i < sizeof of_face / sizeof *of_face; i++)
        *of_face[i] = take_doubles(&arena, 2 * m + tail);
    work->image = take_doubles(&arena, 2 * m);
    work->panel = take_doubles(&arena, PANEL * stride);
    work->matrix = (Square){take_doubles(&arena, size * stride), size, stride};
    work->gram = (Square){take_doubles(&arena, size * stride), size, stride};
    work->kept = take(&arena, sizeof(int32_t) * (size_t)(2 * m));
    work->face_index = take(&arena, sizeof(int32_t) * (size_t)(2 * m));
    return arena.used;
}

/* One sample of a batch. */
typedef struct {
    long n, k;
    int slack;
    const double *table, *row, *column, *row_size, *column_size;
    const double *lower, *lower_rate, *upper, *upper_rate, *low, *high, *objective;
    double *z, *dual_lower, *dual_upper;
} Sample;

static Sample sample_of(const Batch *batch, long b)
{
    long n = batch->n, k = batch->k, which = batch->matrices == 1 ? 0 : b;
    Sample sample = {
        n, k, (int)batch->slack,
        batch->table + which * (n + 1) * batch->stride, batch->row + which * n,
        batch->column + which * k, batch->row_size + which * n, batch->column_size + which * k,
        batch->lower + b * n, batch->lower_rate + b * n, batch->upper + b * n,
        batch->upper_rate + b * n, batch->low + b * k, batch->high + b * k,
        batch->objective + b * k,
        batch->z + b * k, batch->dual_lower + b * n, batch->dual_upper + b * n,
    };
    return sample;
}

/* The factor of a row. One without an entry has no unit of its own: its rates give one, or its
   bounds. */
static double row_factor(const Sample *sample, long j)
{
    if (sample->row_size[j] > 0)
        return sample->row[j];
    double low = fabs(sample->lower[j]), high = fabs(sample->upper[j]);
    double rate = larger(sample->lower_rate[j], sample->upper_rate[j]);
    double bound = larger(low < INFINITE ? low : 0, high < INFINITE ? high : 0);
    return 1 / power_of_two(rate > 0 ? rate : bound);
}

/* Write one sample in standard form, scaled.

   Under l1 a row costs max(0, (lower - a) / lower_rate, (a - upper) / upper_rate). Where the two
   lines meet at or above 0, at the kink a*, that is one elastic side and a linear term,

       (penalty_u + penalty_l) (a - a*)+  -  penalty_l (a - a*),

   so that a row with an equation has one dual variable in [-penalty_l, penalty_u], not two. */
static void standard_form(const Sample *sample, Solver *solver)
{
    Rows *rows = &solver->rows;
    Sides *sides = &solver->sides;
    long m = rows->m, k = rows->k, n = sample->n;
    double *h = sides->bound, *on = sides->present, *elastic = sides->elastic;
    double *penalty = sides->penalty, *cost = sides->cost, largest_rate = 0;
    rows->table = sample->table;
    for (long j = 0; j < m; j++) {
        ((int32_t *)rows->index)[j] = (int32_t)(j < n ? j : n);
        rows->upper_rate[j] = rows->lower_rate[j] = sides->equation[j] = 0;
    }
    fill(h, rows->sides, 0.0);
    fill(on, rows->sides, 0.0);
    fill(elastic, rows->sides, 0.0);
    fill(penalty, rows->sides, 0.0);
    fill(cost, rows->stride, 0.0);
    for (long a = 0; a < k; a++)
        cost[a] = sample->objective[a] * sample->column[a];
    for (long j = 0; j < n; j++) {
        double scale = row_factor(sample, j), upper = sample->upper[j], lower = sample->lower[j];
        double up = sample->upper_rate[j], low = sample->lower_rate[j];
        int above = upper < INFINITE, below = lower > -INFINITE;
        /* A row true whatever z is: between equal bounds it would have no interior. */
        if (sample->row_size[j] == 0 && lower <= 0 && upper >= 0 && up + low == 0)
            continue;
        sides->equation[j] = above && below;
        if (sample->slack == OWN && lower >= upper && up + low > 0) {
            lower = upper = lower > upper ? (lower * up + upper * low) / (up + low) : upper;
            if (up > 0 && low > 0) {
                const double *entry = sample->table + j * rows->stride;
                on[j] = elastic[j] = 1;
                h[j] = upper * scale;
                penalty[j] = (1 / up + 1 / low) / scale;
                for (long a = 0; a < k; a++)
                    cost[a] -= entry[a] / (low * scale);
                continue;
            }
        }
        if (above) {
            on[j] = 1, h[j] = upper * scale;
            if (sample->slack == OWN && up > 0)
                elastic[j] = 1, penalty[j] = 1 / (up * scale);
        }
        if (below) {
            on[m + j] = 1, h[m + j] = -lower * scale;
            if (sample->slack == OWN && low > 0)
                elastic[m + j] = 1, penalty[m + j] = 1 / (low * scale);
        }
        if (sample->slack == SHARED) {
            rows->upper_rate[j] = above ? up * scale : 0;
            rows->lower_rate[j] = below ? low * scale : 0;
            largest_rate = larger(largest_rate, larger(rows->upper_rate[j], rows->lower_rate[j]));
        }
    }
    double unit = power_of_two(largest(h, 2 * m));
    if (sample->slack == SHARED) {
        double slack_unit = 1 / power_of_two(largest_rate);
        for (long j = 0; j < m; j++) {
            rows->upper_rate[j] *= slack_unit;
            rows->lower_rate[j] *= slack_unit;
        }
        cost[k] = slack_unit;
        on[2 * m + 2 * k] = 1;
    }
    double price = power_of_two(larger(largest(cost, k + 1), largest(penalty, 2 * m)));
    for (long i = 0; i < 2 * m; i++) {
        h[i] /= unit;
        penalty[i] /= price;
    }
    for (long a = 0; a <= k; a++)
        cost[a] /= price;
    for (long a = 0; a < k; a++) {
        if (sample->high[a] < INFINITE)
            on[2 * m + a] = 1, h[2 * m + a] = sample->high[a] / sample->column[a] / unit;
        if (sample->low[a] > -INFINITE)
            on[2 * m + k + a] = 1, h[2 * m + k + a] = -sample->low[a] / sample->column[a] / unit;
    }
    solver->unit = unit, solver->price = price;
}

/* Write z and the multipliers in the units of the data; 0 where the numbers are none. */
static void restore(const Sample *sample, const Solver *solver)
{
    const Rows *rows = &solver->rows;
    const Sides *sides = &solver->sides;
    const double *y = solver->at.y;
    long m = rows->m;
    int good = 1;
    for (long a = 0; a < sample->k; a++) {
        double value = solver->at.v[a] * sample->column[a] * solver->unit;
        good = good && is_finite(value) && fabs(value) < DIVERGED;
        sample->z[a] = larger(smaller(value, sample->high[a]), sample->low[a]);
    }
    for (long j = 0; j < sample->n; j++) {
        double scale = row_factor(sample, j) * solver->price, up = y[j] * scale, down = y[m + j] * scale;
        double up_rate = sample->upper_rate[j], low_rate = sample->lower_rate[j];
        if (rows->elastic && sides->equation[j] > 0) {
            int crossed = sample->lower[j] > sample->upper[j];
            if (sides->present[m + j] == 0) {
                /* Both sides in one, whose multiplier counts from the lower side's penalty:
                   up - down = net, up up_rate + down low_rate <= 1, = 1 where they cross. */
                double net = up - 1 / low_rate;
                double both = (1 - net * up_rate) / (up_rate + low_rate);
                down = crossed ? both : larger(-net, 0.0);
                up = larger(net + down, 0.0);
            } else if (crossed && up_rate > 0) {
                down = down + 1 / up_rate - up;
                up = 1 / up_rate;
            } else if (crossed && low_rate > 0) {
                up = up + 1 / low_rate - down;
                down = 1 / low_rate;
            }
        }
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

/* Solving on the rows that may bind, and checking the others afterwards. At an l-infinity optimum
   k + 1 of up to 2 n sides bind, and the start knows which are far from it: rows whose weight
   there is below FAR times the (k + 1)-th largest. Fewer than WORTH must be left. */
static const double FAR = 0x1p-4, WORTH = 0.8, VIOLATED = 1e-11;

static int restrict_rows(Solver *solver)
{
    Rows *rows = &solver->rows, *part = &solver->part_rows;
    Sides *sides = &solver->sides, *few = &solver->part_sides;
    Point *at = &solver->at, *small = &solver->part_at;
    long m = rows->m, k = rows->k, tail = rows->sides - 2 * m, kept = 0;
    const double *weight = solver->work.weight;
    set_weights(rows, sides, at, &solver->work);
    double least = cutoff(weight, rows->sides, k + 1) * 0x1p10 * FAR;
    for (long j = 0; j < m; j++) {
        solver->picked[kept] = (int32_t)j;
        kept += larger(weight[j], weight[m + j]) >= least && kept < m - 1;
    }
    if ((double)kept >= WORTH * (double)m)
        return 0;
    long padded = round_up(kept, 8);
    part->table = rows->table, part->m = padded, part->sides = 2 * padded + tail;
    for (long i = 0; i < padded; i++) {
        long j = solver->picked[i < kept ? i : 0];
        double counts = i < kept ? 1.0 : 0.0;
        ((int32_t *)part->index)[i] = rows->index[i < kept ? j : m - 1];
        part->upper_rate[i] = counts * rows->upper_rate[j];
        part->lower_rate[i] = counts * rows->lower_rate[j];
        few->equation[i] = counts * sides->equation[j];
        for (int side = 0; side < 2; side++) {
            long to = i + side * padded, from = j + side * m;
            few->present[to] = counts * sides->present[from];
            few->bound[to] = sides->bound[from];
            small->s[to] = i < kept ? at->s[from] : 1.0;
            small->y[to] = counts * at->y[from];
        }
    }
    for (long i = 0; i < padded; i++) /* padding: any row will do, its sides are absent */
        if (i >= kept)
            few->bound[i] = few->bound[padded + i] = 0;
    size_t bytes = sizeof(double) * (size_t)tail;
    memcpy(few->present + 2 * padded, sides->present + 2 * m, bytes);
    memcpy(few->bound + 2 * padded, sides->bound + 2 * m, bytes);
    memcpy(small->s + 2 * padded, at->s + 2 * m, bytes);
    memcpy(small->y + 2 * padded, at->y + 2 * m, bytes);
    memcpy(few->cost, sides->cost, sizeof(double) * (size_t)rows->stride);
    memcpy(small->v, at->v, sizeof(double) * (size_t)rows->stride);
    fill(few->elastic, part->sides, 0.0);
    fill(few->penalty, part->sides, 0.0);
    fill(small->p, part->sides, 0.0);
    fill(small->t, part->sides, 1.0);
    return (int)kept;
}

/* If the part's answer violates no side at all, copy it to `at` and return 1. */
static int extend(Solver *solver, long kept)
{
    Rows *rows = &solver->rows, *part = &solver->part_rows;
    Point *at = &solver->at, *small = &solver->part_at;
    long m = rows->m, tail = rows->sides - 2 * m;
    double scale = larger(largest(small->v, rows->k + 1), 1.0), worst = 0;
    times(rows, small->v, solver->work.image, solver->work.product);
    for (long i = 0; i < rows->sides; i++) {
        double over = solver->work.product[i] - solver->sides.bound[i];
        worst = larger(worst, solver->sides.present[i] * over);
    }
    if (!(worst <= VIOLATED * scale))
        return 0;
    fill(at->y, 2 * m, 0.0);
    for (long i = 0; i < kept; i++) {
        at->y[solver->picked[i]] = small->y[i];
        at->y[m + solver->picked[i]] = small->y[part->m + i];
    }
    memcpy(at->y + 2 * m, small->y + 2 * part->m, sizeof(double) * (size_t)tail);
    memcpy(at->v, small->v, sizeof(double) * (size_t)rows->stride);
    return 1;
}

/* Whether z is feasible and the multipliers prove that nothing is better: the quick part of
   duality.is_optimal, from the data as they came (scaling by powers of two rounds nothing). Also
   writes the slack that z needs and its value. */
static int prove(const Sample *sample, Solver *solver, double *slack_needed, double *value_at)
{
    const double EQUATION = 1e-9, CLOSE = 1e-8;
    Workspace *work = &solver->work;
    const Rows *rows = &solver->rows;
    long n = sample->n, k = sample->k, m = rows->m;
    double *scaled = work->affine, *image = work->image, *net = work->x, *reduced = work->pull;
    double unit = 0, price = 0, size = 0, value = 0, slack = 0, bound = 0, paid = 0;
    int feasible = 1, bent = sample->slack != NONE, linear = 0;
    fill(scaled, rows->stride, 0.0);
    for (long a = 0; a < k; a++) {
        double z = sample->z[a];
        scaled[a] = z / sample->column[a];
        value += sample->objective[a] * z;
        linear |= sample->objective[a] != 0;
        feasible &= z >= sample->low[a] && z <= sample->high[a];
        double column = sample->column_size[a] > 0 ? sample->column_size[a] : 1.0;
        size = larger(size, column * fabs(z));
        price = larger(price, fabs(sample->objective[a]) / column);
    }
    rows_times(rows, rows->index, m, scaled, image);
    fill(net, m, 0.0);
    for (long j = 0; j < n; j++) { /* the unit of bounds and the price of rows */
        double row = sample->row_size[j];
        if (row > 0) {
            double low = fabs(sample->lower[j]), high = fabs(sample->upper[j]);
            unit = larger(unit, larger(low < INFINITE ? low : 0, high < INFINITE ? high : 0) / row);
        }
        if (bent && sample->lower_rate[j] > 0)
            price = larger(price, row / sample->lower_rate[j]);
        if (bent && sample->upper_rate[j] > 0)
            price = larger(price, row / sample->upper_rate[j]);
    }
    unit = unit > 0 ? unit : size;
    for (long j = 0; j < n; j++) {
        double lower = sample->lower[j], upper = sample->upper[j], at = image[j] / sample->row[j];
        double low_rate = sample->lower_rate[j], up_rate = sample->upper_rate[j];
        int below = lower > -INFINITE, above = upper < INFINITE;
        double allowed = EQUATION * sample->row_size[j] * unit;
        double down = below ? larger(sample->dual_lower[j], 0.0) : 0;
        double up = above ? larger(sample->dual_upper[j], 0.0) : 0;
        double common = lower <= upper ? smaller(down, up) : 0, needed = 0;
        if (below) {
            double miss = lower - at;
            if (!(bent && low_rate > 0))
                feasible &= miss <= allowed;
            needed = larger(needed, bent && low_rate > 0 ? miss / low_rate : miss);
        }
        if (above) {
            double miss = at - upper;
            if (!(bent && up_rate > 0))
                feasible &= miss <= allowed;
            needed = larger(needed, bent && up_rate > 0 ? miss / up_rate : miss);
        }
        slack = sample->slack == OWN ? slack + needed : larger(slack, needed);
        down -= common, up -= common;
        bound += (below ? down * lower : 0) - (above ? up * upper : 0);
        double cost = up * up_rate + down * low_rate;
        paid = sample->slack == OWN ? larger(paid, cost) : paid + cost;
        net[j] = (up - down) / sample->row[j];
    }
    value += bent ? slack : 0;
    rows_transposed_times(rows, rows->index, m, net, reduced);
    for (long a = 0; a < k; a++) {
        double r = sample->objective[a] + reduced[a] / sample->column[a];
        double end = r > 0 ? sample->low[a] : sample->high[a];
        if (fabs(end) < INFINITE)
            bound += r * end;
        else
            feasible &= fabs(r) <= EQUATION * sample->column_size[a] * price;
    }
    if (bent) {
        feasible &= paid <= 1 + EQUATION;
        bound = linear ? bound : larger(bound, 0.0);
    }
    *slack_needed = slack, *value_at = value;
    return feasible && is_finite(value) && is_finite(bound) &&
           fabs(value - bound) <= CLOSE * fabs(value);
}

static void solve_sample(void *context, long b, void *memory)
{
    const Batch *batch = context;
    Solver solver;
    lay_out(&solver, batch, memory);
    Sample sample = sample_of(batch, b);
    standard_form(&sample, &solver);
    start(&solver.rows, &solver.sides, largest(sample.objective, sample.k) > 0, &solver.work,
          &solver.at);
    fill(solver.step.v, solver.rows.stride, 0.0);
    fill(solver.other.v, solver.rows.stride, 0.0);
    int kept = sample.slack == SHARED ? restrict_rows(&solver) : 0, settled = 0;
    batch->steps[b] = 0;
    if (kept) {
        long steps = 0;
        int verdict = minimise(&solver.part_rows, &solver.part_sides, &solver.part_at,
                               &solver.step, &solver.other, &solver.work, &steps);
        settled = verdict != STUCK && extend(&solver, kept);
        batch->steps[b] += steps;
    }
    if (!settled) {
        long steps = 0;
        minimise(&solver.rows, &solver.sides, &solver.at, &solver.step, &solver.other, &solver.work, &steps);
        batch->steps[b] += steps;
    }
    restore(&sample, &solver);
    batch->proven[b] = prove(&sample, &solver, batch->slack_needed + b, batch->value + b);
}

/* Minimise every program of a batch. Returns 0, or -1 without memory. */
EXPORT int solve_programs(const Batch *batch)
{
    Solver solver;
    return parallel_for(batch->batch, (int)batch->threads, lay_out(&solver, batch, NULL),
                        solve_sample, (void *)batch);
}
