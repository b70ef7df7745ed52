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

static void find_units(const Batch *sample, Proof *proof)
{
    double size = 0; /* of z */
    for (long i = 0; i < 2 * sample->n; i++) {
        double row = sample->row_size[i % sample->n], rate = sample->rate[i];
        if (row > 0)
            proof->unit = larger(proof->unit, finite_size(sample->bound[i]) / row);
        if (sample->slack != NONE && rate > 0)
            proof->price = larger(proof->price, row / rate);
    }
    for (long a = 0; a < sample->k; a++) {
        double column = sample->column_size[a] > 0 ? sample->column_size[a] : 1.0;
        size = larger(size, column * fabs(sample->z[a]));
        proof->price = larger(proof->price, fabs(sample->objective[a]) / column);
    }
    proof->unit = proof->unit > 0 ? proof->unit : size; /* a cone has no size but that of z */
}

/* Both sides of row j, w_j z = at; returns the difference of its multipliers. What these have in
   common is taken away, which never weakens the bound unless the sides cross. */
static double add_row(const Batch *sample, long j, double at, Proof *proof)
{
    double allowed = proof->rounding * sample->row_size[j] * proof->unit;
    double y[2], needed = 0, cost = 0, proven = 0;
    for (int side = 0; side < 2; side++) {
        long i = side * sample->n + j;
        y[side] = sample->bound[i] < INFINITE ? larger(sample->multiplier[i], 0.0) : 0.0;
    }
    int crossed = sample->bound[j] + sample->bound[sample->n + j] < 0;
    double common = crossed ? 0.0 : smaller(y[0], y[1]);
    for (int side = 0; side < 2; side++, at = -at) {
        long i = side * sample->n + j;
        double bound = sample->bound[i], rate = sample->rate[i], miss = at - bound;
        int elastic = sample->slack != NONE && rate > 0;
        if (!(bound < INFINITE))
            continue;
        y[side] -= common;
        proof->feasible &= elastic || miss <= allowed;
        needed = larger(needed, elastic ? miss / rate : miss);
        cost += y[side] * rate;
        proven -= y[side] * bound;
    }
    proof->bound += proven;
    if (sample->slack == OWN) {
        proof->slack += needed;
        proof->paid = larger(proof->paid, cost);
    } else {
        proof->slack = larger(proof->slack, needed);
        proof->paid += cost;
    }
    return y[0] - y[1];
}

int prove(const Batch *sample, const Program *program, double tolerance, Workspace *work)
{
    Program whole = *program; /* all rows of the table */
    long n = sample->n, k = sample->k;
    double *scaled = work->affine, *net = work->x, *reduced = work->pull;
    Proof proof = {.feasible = 1, .rounding = smaller(ROUNDING, tolerance)};
    int linear = 0;
    whole.index = work->every, whole.m = round_up(n, 8);
    find_units(sample, &proof);
    fill(scaled, program->stride, 0.0);
    for (long a = 0; a < k; a++) {
        double z = sample->z[a];
        scaled[a] = z / sample->column[a];
        proof.value += sample->objective[a] * z;
        linear |= sample->objective[a] != 0;
        proof.feasible &= z <= sample->box[a] && -z <= sample->box[k + a];
    }
    rows_times(&whole, scaled, work->image);
    fill(net, whole.m, 0.0);
    for (long j = 0; j < n; j++)
        net[j] = add_row(sample, j, work->image[j] / sample->row[j], &proof) / sample->row[j];
    rows_transposed_times(&whole, net, reduced);
    for (long a = 0; a < k; a++) {
        double r = sample->objective[a] + reduced[a] / sample->column[a];
        double end = sample->box[r > 0 ? k + a : a];
        if (end < INFINITE)
            proof.bound -= fabs(r) * end;
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
