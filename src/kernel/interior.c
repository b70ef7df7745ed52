/* A primal-dual interior-point method for one layer program (Mehrotra 1992).

       minimise    c v + sum_i penalty_i p_i           v = (z, d)
       subject to  G v + s - p  =  h                   s, p >= 0,  p_i = 0 where a side is hard

       maximise    -h y
       subject to  G' y + c  =  0                      0 <= y <= penalty  (infinite where hard)

   An elastic side may be violated by p at the price `penalty`: that is the own slack of a row
   under l1, which thus needs no variable. With t = penalty - y, the central path is s y = mu and,
   where elastic, p t = mu. Linearised, with the right-hand sides e and f of these two,

       G' dy = -(c + G' y)
       G dv + ds - dp = -(G v + s - p - h)
       s dy + y ds = e,      t dp - p dy = f

   and s, p, y eliminated in this order, a step is

       D = 1 / (s/y + p/t),            rho = G v - h + s + e/y - p - f/t,
       G' D G dv = -(c + G' (y + D rho)),        dy = D (G dv + rho),
       ds = e/y - (s/y) dy,                      dp = f/t + (p/t) dy.

   Both kinds of pairs, (s, y) and (p, t), follow the same formulas, with dt = -dy: loops over all
   `pairs` therefore write s for s and p, y for y and t, and e for e and f.                    */
#include "program.h"

static const int MOST_STEPS = 60;
/* Where no vertex is found, an interior point is taken whose relative gap is this small, and
   c + G' y beside c. (A proof of the answer tells whether G v + s - p - h is.) */
static const double GAP = 1e-11, INFEASIBILITY = 5e-11;
/* How much of the way to the boundary a step goes. */
static const double FRACTION = 0.995;
static const double NO_PIVOT = 1e-14;
/* Rows whose weight is below a part of the (k + 1)-th largest, a vertex's last, are left out of the
   Gram matrix: first more of them, while the relative gap is above FAR and the pivots leave no
   doubt that the others determine z. (Not without a slack, where that costs steps.)
   None once a step has failed. */
static const double NEGLIGIBLE = 0x1p-10, FAR = 1e-3, NEGLIGIBLE_FAR = 0x1p-5, DOUBTFUL = 1e-4;

/* D and the inverses in it. */
void set_weights(const Program *program, const Point *at, Workspace *work)
{
    const double *on = program->present, *s = at->s, *y = at->y, *p = s + program->sides;
    double *inverse_y = work->inverse_y, *inverse_t = inverse_y + program->sides;
    for (long i = 0; i < program->pairs; i++) { /* not 1/(y + 1 - on): sums may be reordered */
        work->inverse_s[i] = 1.0 / (on[i] > 0 ? s[i] : 1.0);
        inverse_y[i] = on[i] / (on[i] > 0 ? y[i] : 1.0);
    }
    for (long i = 0; i < program->sides; i++)
        work->weight[i] = y[i] * work->inverse_s[i];
    for (long i = 0; i < program->elastic_sides; i++) {
        double inverse = s[i] * inverse_y[i] + p[i] * inverse_t[i];
        work->weight[i] = on[i] / (on[i] > 0 ? inverse : 1.0);
    }
}

/* Solve for dv and dy; `work` holds the factor, D, rho and gradient = c + G' y. */
static void newton(const Program *program, Workspace *work, double *dv, double *dy)
{
    const double *rho = work->rho, *weight = work->weight;
    for (long i = 0; i < program->sides; i++)
        dy[i] = weight[i] * rho[i];
    transposed_times(program, dy, work->image, dv);
    for (long a = 0; a < program->size; a++)
        dv[a] = -(work->gradient[a] + dv[a]);
    solve_factored(work->matrix, work->inverse_pivot, dv);
    times(program, dv, work->image, work->step_product);
    for (long i = 0; i < program->sides; i++)
        dy[i] = weight[i] * (work->step_product[i] + rho[i]);
}

/* The affine direction, towards mu = 0: there rho = G v - h. Only its ratios dy/y are kept; the
   others follow from them: ds/s = -(1 + dy/y). */
static void predict(const Program *program, Workspace *work)
{
    const double *inverse_y = work->inverse_y, *dy = work->push;
    long sides = program->sides;
    for (long i = 0; i < sides; i++)
        work->rho[i] = program->present[i] * (work->product[i] - program->bound[i]);
    newton(program, work, work->affine, work->push);
    for (long i = 0; i < sides; i++)
        work->ratio[i] = dy[i] * inverse_y[i];
    for (long i = 0; i < program->elastic_sides; i++)
        work->ratio[sides + i] = -dy[i] * inverse_y[sides + i];
}

/* s y after the longest affine steps. */
static double affine_gap(const Program *program, const Point *at, const Workspace *work)
{
    const double *restrict on = program->present, *restrict ratio = work->ratio;
    double primal = 1, dual = 1, gap = 0;
    for (long i = 0; i < program->pairs; i++) {
        primal = larger(primal, on[i] + ratio[i]);
        dual = larger(dual, -ratio[i]);
    }
    primal = 1 / primal, dual = 1 / dual;
    for (long i = 0; i < program->pairs; i++)
        gap += on[i] * at->s[i] * at->y[i] * (1 - primal * (1 + ratio[i])) * (1 + dual * ratio[i]);
    return gap;
}

/* The direction towards mu = target with Mehrotra's second-order term. With the affine direction
   ds', dy' and its ratios,

       e/y = (target - s y - ds' dy') / y  =  target/y - s + s (1 + dy'/y) dy'/y
       rho = (G v - h)  +  e/y + s  -  f/t - p                                               */
static void correct(const Program *program, const Point *at, Workspace *work, double target,
                    Point *step)
{
    const double *on = program->present, *ratio = work->ratio, *s = at->s;
    double *push = work->push, *rho = work->rho, *dy = step->y;
    long sides = program->sides;
    for (long i = 0; i < program->pairs; i++)
        push[i] = target * work->inverse_y[i] + s[i] * (on[i] + ratio[i]) * ratio[i];
    for (long i = 0; i < sides; i++)
        rho[i] += push[i];
    for (long i = 0; i < program->elastic_sides; i++)
        rho[i] -= push[sides + i];
    newton(program, work, step->v, dy);
    for (long i = 0; i < program->elastic_sides; i++)
        dy[sides + i] = -dy[i] * program->elastic[i];
    for (long i = 0; i < program->pairs; i++)
        step->s[i] = push[i] - s[i] * (on[i] + dy[i] * work->inverse_y[i]);
}

/* Go `FRACTION` of the way to where an entry of s, or of y, is 0, at most the whole step. Returns
   the longer of these two ways, in steps. */
static double advance(const Program *program, const Point *step, Workspace *work, Point *at)
{
    double primal = 1e-300, dual = 1e-300; /* inverse lengths, at first */
    for (long i = 0; i < program->pairs; i++) {
        primal = larger(primal, -step->s[i] * work->inverse_s[i]);
        dual = larger(dual, -step->y[i] * work->inverse_y[i]);
    }
    double longest = 1 / smaller(primal, dual);
    primal = smaller(1.0, FRACTION / primal), dual = smaller(1.0, FRACTION / dual);
    for (long i = 0; i < program->pairs; i++) {
        at->s[i] += primal * step->s[i];
        at->y[i] += dual * step->y[i];
    }
    for (long i = 0; i < program->sides; i++)
        work->product[i] += primal * work->step_product[i];
    for (long a = 0; a < program->size; a++)
        at->v[a] += primal * step->v[a];
    return longest;
}

/* The duality gap s y + p t, and the value c v + penalty p. */
static void measure(const Program *program, const Point *at, double *gap, double *value)
{
    const double *p = at->s + program->sides;
    *gap = *value = 0;
    for (long i = 0; i < program->pairs; i++)
        *gap += program->present[i] * at->s[i] * at->y[i];
    for (long i = 0; i < program->elastic_sides; i++)
        *value += program->penalty[i] * p[i];
    for (long a = 0; a < program->size; a++)
        *value += program->cost[a] * at->v[a];
}

/* Factor G' D G without negligible rows; returns the smallest pivot. */
static double factor(const Program *program, double negligible, Workspace *work)
{
    double least = negligible * large_weight(work->weight, program->sides, program->size);
    normal_matrix(program, work->weight, least, work, work->matrix);
    return cholesky(work->matrix, program->size, NO_PIVOT, work->inverse_pivot);
}

/* Follow the central path from `at` to an optimum: a vertex exact to rounding, or a point within
   tolerance. Where there is none, `at` is where it went; the answer needs a proof in any case. */
void minimise(const Program *program, Point *at, Point *step, Workspace *work, int64_t *steps)
{
    double pairs = 0, gap, value, cost = larger(largest(program->cost, program->size), 1.0);
    double negligible = program->shared || program->elastic_sides ? NEGLIGIBLE_FAR : NEGLIGIBLE;
    for (long i = 0; i < program->pairs; i++)
        pairs += program->present[i];
    times(program, at->v, work->image, work->product);
    for (int count = 0, idle = 0; count < MOST_STEPS && idle < 3; count++, ++*steps) {
        measure(program, at, &gap, &value);
        transposed_times(program, at->y, work->image, work->gradient);
        for (long a = 0; a < program->size; a++)
            work->gradient[a] += program->cost[a];
        int feasible = largest(work->gradient, program->size) <= INFEASIBILITY * cost;
        if (!is_finite(gap + value) || (feasible && gap <= GAP * fabs(value) + 1e-14))
            return;
        set_weights(program, at, work);
        if (gap <= FAR * fabs(value))
            negligible = smaller(negligible, NEGLIGIBLE);
        if (idle)
            negligible = 0;
        if (factor(program, negligible, work) < DOUBTFUL && negligible == NEGLIGIBLE_FAR)
            factor(program, negligible = NEGLIGIBLE, work);
        predict(program, work);
        if (finite_termination(program, at, work, step))
            return;
        double ahead = affine_gap(program, at, work) / larger(gap, 1e-300);
        double target = gap / pairs * smaller(1.0, ahead * ahead * ahead);
        correct(program, at, work, target, step);
        idle = advance(program, step, work, at) < 1e-3 ? idle + 1 : 0;
    }
}
