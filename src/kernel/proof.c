/* The quick part of duality.is_optimal: whether a point is feasible and multipliers prove that
   nothing is better, from the data as they came (scaling by powers of two rounds nothing). */
#include "program.h"

/* What counts as rounding in an equation, relative to the largest bound or cost; and the relative
   gap up to which a point is optimal. Both as in duality.py. */
static const double ROUNDING = 1e-9, GAP = 1e-8;

typedef struct {
    double unit, price;  /* the largest bound in units of its row, cost in units of its column */
    double value, slack; /* at z */
    double bound, paid;  /* what the multipliers prove of the value, and cost in slack */
    double rounding;
    int feasible;
} Proof;

static double finite_part(double bound)
{
    return fabs(bound) < INFINITE ? fabs(bound) : 0.0;
}

static void find_units(const Batch *sample, Proof *proof)
{
    double size = 0; /* of z */
    for (long j = 0; j < sample->n; j++) {
        double row = sample->row_size[j];
        double bound = larger(finite_part(sample->lower[j]), finite_part(sample->upper[j]));
        proof->unit = larger(proof->unit, row > 0 ? bound / row : 0);
        if (sample->slack != NONE && sample->lower_rate[j] > 0)
            proof->price = larger(proof->price, row / sample->lower_rate[j]);
        if (sample->slack != NONE && sample->upper_rate[j] > 0)
            proof->price = larger(proof->price, row / sample->upper_rate[j]);
    }
    for (long a = 0; a < sample->k; a++) {
        double column = sample->column_size[a] > 0 ? sample->column_size[a] : 1.0;
        size = larger(size, column * fabs(sample->z[a]));
        proof->price = larger(proof->price, fabs(sample->objective[a]) / column);
    }
    proof->unit = proof->unit > 0 ? proof->unit : size; /* a cone has no size but that of z */
}

/* One side of a row, missed by `miss` if that is above 0. */
static void add_side(const Batch *sample, double miss, double rate, double allowed, double *needed,
                     Proof *proof)
{
    int bent = sample->slack != NONE && rate > 0;
    proof->feasible &= bent || miss <= allowed;
    *needed = larger(*needed, bent ? miss / rate : miss);
}

/* Both sides of row j, w_j z = at; returns the difference of its multipliers. What these have in
   common is taken away, which never weakens the bound unless the sides cross. */
static double add_row(const Batch *sample, long j, double at, Proof *proof)
{
    double lower = sample->lower[j], upper = sample->upper[j], needed = 0;
    double low_rate = sample->lower_rate[j], up_rate = sample->upper_rate[j];
    double allowed = proof->rounding * sample->row_size[j] * proof->unit;
    int below = lower > -INFINITE, above = upper < INFINITE;
    double down = below ? larger(sample->dual_lower[j], 0.0) : 0;
    double up = above ? larger(sample->dual_upper[j], 0.0) : 0;
    double common = lower <= upper ? smaller(down, up) : 0;
    down -= common, up -= common;
    if (below)
        add_side(sample, lower - at, low_rate, allowed, &needed, proof);
    if (above)
        add_side(sample, at - upper, up_rate, allowed, &needed, proof);
    double cost = up * up_rate + down * low_rate;
    if (sample->slack == OWN) {
        proof->slack += needed;
        proof->paid = larger(proof->paid, cost);
    } else {
        proof->slack = larger(proof->slack, needed);
        proof->paid += cost;
    }
    proof->bound += (below ? down * lower : 0) - (above ? up * upper : 0);
    return up - down;
}

int prove(const Batch *sample, const Program *program, int32_t *every, double tolerance,
          Workspace *work)
{
    Program whole = *program; /* all rows of the table */
    long n = sample->n, k = sample->k;
    double *scaled = work->affine, *net = work->x, *reduced = work->pull;
    Proof proof = {.feasible = 1, .rounding = smaller(ROUNDING, tolerance)};
    int linear = 0;
    whole.index = every, whole.m = round_up(n, 8);
    find_units(sample, &proof);
    fill(scaled, program->stride, 0.0);
    for (long a = 0; a < k; a++) {
        double z = sample->z[a];
        scaled[a] = z / sample->column[a];
        proof.value += sample->objective[a] * z;
        linear |= sample->objective[a] != 0;
        proof.feasible &= z >= sample->low[a] && z <= sample->high[a];
    }
    rows_times(&whole, scaled, work->image);
    fill(net, whole.m, 0.0);
    for (long j = 0; j < n; j++)
        net[j] = add_row(sample, j, work->image[j] / sample->row[j], &proof) / sample->row[j];
    rows_transposed_times(&whole, net, reduced);
    for (long a = 0; a < k; a++) {
        double r = sample->objective[a] + reduced[a] / sample->column[a];
        double end = r > 0 ? sample->low[a] : sample->high[a];
        if (fabs(end) < INFINITE)
            proof.bound += r * end;
        else
            proof.feasible &= fabs(r) <= proof.rounding * sample->column_size[a] * proof.price;
    }
    if (sample->slack != NONE) {
        proof.value += proof.slack;
        proof.feasible &= proof.paid <= 1 + proof.rounding;
        proof.bound = linear ? proof.bound : larger(proof.bound, 0.0);
    }
    double gap = fabs(proof.value - proof.bound), size = fabs(proof.value);
    proof.feasible &= is_finite(proof.value) && is_finite(proof.bound);
    *sample->proven = proof.feasible && gap <= GAP * size;
    return proof.feasible && gap <= tolerance * (size + proof.unit * proof.price);
}
