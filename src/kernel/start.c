/* Where the interior-point method starts: near the least-squares point and the central path. */
#include "program.h"

/* A row with one side says little of where z is, but must not leave the start undetermined. */
static const double ONE_SIDED = 1e-9;
/* Weight that holds an entry of the least-squares point at its bound. */
static const double HEAVY = 1e6;
/* The start lies inside the box by this fraction of the least-squares error. */
static const double INSIDE = 0.3, LEAST_MARGIN = 1e-7, AWAY = 0.25, LEAST_MU = 1e-12;
/* The smallest relative pivot and diagonal entry that leave no doubt that the equations have full
   rank: far above what ONE_SIDED adds to the diagonal. */
static const double NO_PIVOT = 1e-14, SURE_PIVOT = 1e-3, SURE_DIAGONAL = 0.1;

/* z = argmin sum_j (w_j z - target_j)^2 over the rows with two sides, about in the box. Entries
   outside are pulled to their bound by a heavy weight, twice if need be: the Gram matrix stays.
   Returns 1 if these rows certainly have full column rank. */
int least_squares(const Program *program, Workspace *work, double *z)
{
    long m = program->m, k = program->k;
    Program plain = *program;
    plain.size = k, plain.shared = 0;
    const double *on = program->present, *h = program->bound;
    double *x = work->x, *pull = work->pull, equations = 0;
    int full = 0;
    fill(work->weight, program->sides, 0.0);
    fill(x, program->sides, 0.0);
    for (long j = 0; j < m; j++) {
        double upper = on[j] * h[j], lower = -on[m + j] * h[m + j];
        double target = on[j] * on[m + j] > 0 ? 0.5 * (upper + lower) : upper + lower;
        equations += program->equation[j];
        work->weight[j] = larger(program->equation[j], ONE_SIDED * larger(on[j], on[m + j]));
        x[j] = work->weight[j] * target;
    }
    fill(work->weight + 2 * m, 2 * k, ONE_SIDED);
    normal_matrix(&plain, work->weight, equations >= (double)k ? 2 * ONE_SIDED : 0.0, work,
                  work->gram);
    transposed_times(&plain, x, work->image, pull);
    for (int attempt = 0; attempt < 3; attempt++) {
        Square factor = work->matrix, gram = work->gram;
        double least = 1.0, pivot;
        for (long a = 0; a < gram.size; a++)
            least = smaller(least, gram.entry[a * (gram.stride + 1)]);
        memcpy(factor.entry, gram.entry, sizeof(double) * (size_t)(gram.size * gram.stride));
        pivot = cholesky(factor, k, NO_PIVOT, work->inverse_pivot);
        if (!attempt)
            full = equations >= (double)k && least > SURE_DIAGONAL && pivot > SURE_PIVOT;
        memcpy(z, pull, sizeof(double) * (size_t)program->stride);
        solve_factored(factor, work->inverse_pivot, z);
        int outside = 0;
        for (long i = 0; i < 2 * k; i++) {
            long a = i % k;
            double sign = i < k ? 1.0 : -1.0, bound = h[2 * m + i];
            double *diagonal = gram.entry + a * (gram.stride + 1);
            if (on[2 * m + i] > 0 && sign * z[a] > bound && *diagonal < HEAVY) {
                *diagonal += 2 * HEAVY;
                pull[a] += sign * 2 * HEAVY * bound;
                outside++;
            }
        }
        if (!outside)
            break;
    }
    fill(z + k, program->stride - k, 0.0);
    return full;
}

/* Move z inside its bounds by `margin`, or by a quarter of the interval. */
static void into_box(const Program *program, double margin, double *z)
{
    const double *on = program->present + 2 * program->m, *h = program->bound + 2 * program->m;
    for (long i = 0, k = program->k; i < 2 * k; i++) {
        long a = i % k, other = (i + k) % (2 * k);
        double sign = i < k ? 1.0 : -1.0;
        double inside = on[other] > 0 ? smaller(margin, 0.25 * (h[i] + h[other])) : margin;
        if (on[i] > 0)
            z[a] = sign * smaller(sign * z[a], h[i] - inside);
    }
}

/* The mean error at the least-squares point v of the rows with two sides and of those that are
   violated: about by this the start keeps away from the bounds. */
double start_margin(const Program *program, int linear, const double *v, Workspace *work)
{
    long m = program->m;
    double total = 0, count = 0;
    times(program, v, work->image, work->product);
    for (long j = 0; j < m; j++) {
        double upper = work->product[j] - program->bound[j];
        double lower = work->product[m + j] - program->bound[m + j];
        double over = larger(program->present[j] * upper, program->present[m + j] * lower);
        int merged = program->equation[j] > program->present[m + j]; /* both sides are in one */
        over = merged ? fabs(upper) : over;
        double counts = program->equation[j] > 0 || over > 0 ? 1.0 : 0.0;
        total += counts * fabs(over);
        count += counts;
    }
    /* An objective leads away from that point. */
    return larger(total / larger(count, 1.0), linear ? AWAY : LEAST_MARGIN);
}

/* A point near at->v, on or near the central path: inside the box by a part of `margin`, under a
   slack that suffices. Elastic sides get y = penalty p / (s + p), so that s y = p t; hard ones
   y = mu / s with the mu of the elastic ones, or that which pays for d, or one that fits the
   costs. */
void centre(const Program *program, double margin, Workspace *work, Point *at)
{
    long k = program->k, n = program->sides;
    double *v = at->v, *p = at->s + n, *t = at->y + n;
    v[k] = 0; /* d, or padding */
    into_box(program, INSIDE * margin, v);
    times(program, v, work->image, work->product);
    double floor = margin;
    if (program->shared) {
        double needed = margin; /* to satisfy all rows that have a rate */
        for (long i = 0; i < 2 * program->m; i++)
            if (program->rate[i] > 0)
                needed = larger(needed, (work->product[i] - program->bound[i]) / program->rate[i]);
        v[k] = 1.2 * needed;
        floor = 0.1 * v[k];
        times(program, v, work->image, work->product);
    }
    double bent = 0, bends = 0, paid = 0;
    for (long i = 0; i < n; i++) {
        double over = work->product[i] - program->bound[i], penalty = program->penalty[i];
        at->s[i] = program->present[i] > 0 ? larger(-over, floor) : 1.0;
        at->y[i] = 0.0;
        if (i >= program->elastic_sides)
            continue;
        p[i] = 0.0, t[i] = 1.0;
        if (program->elastic[i] > 0) {
            at->s[i] = larger(-over, 0.0) + margin;
            p[i] = larger(over, 0.0) + margin;
            at->y[i] = penalty * p[i] / (at->s[i] + p[i]);
            t[i] = penalty - at->y[i];
            bent += at->y[i] * at->s[i];
            bends += 1.0;
        }
    }
    double mu = bends > 0 ? bent / bends : largest(program->cost, k + 1) * floor;
    if (program->shared) {
        for (long i = 0; i < n; i++)
            paid += program->rate[i] / at->s[i];
        mu = program->cost[k] / paid;
    }
    mu = larger(mu, LEAST_MU);
    for (long i = 0; i < n; i++)
        if (program->present[i] > 0 && at->y[i] == 0)
            at->y[i] = mu / at->s[i];
}
