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
/* Where no vertex is found, an interior point with this relative gap is taken. */
static const double GAP = 1e-11;
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
    const double *restrict on = program->present, *restrict s = at->s, *restrict y = at->y;
    const double *restrict p = s + program->sides;
    double *restrict inverse_s = work->inverse_s, *restrict inverse_y = work->inverse_y;
    double *restrict weight = work->weight, *restrict inverse_t = inverse_y + program->sides;
    for (long i = 0; i < program->pairs; i++) { /* not 1/(y + 1 - on): sums may be reordered */
        inverse_s[i] = 1.0 / (on[i] > 0 ? s[i] : 1.0);
        inverse_y[i] = on[i] / (on[i] > 0 ? y[i] : 1.0);
    }
    for (long i = 0; i < program->sides; i++)
        weight[i] = y[i] * inverse_s[i];
    for (long i = 0; i < program->elastic_sides; i++) {
        double inverse = s[i] * inverse_y[i] + p[i] * inverse_t[i];
        weight[i] = on[i] / (on[i] > 0 ? inverse : 1.0);
    }
}

/* Solve for dv and dy; `work` holds the factor, D, rho and gradient = c + G' y. */
static void newton(const Program *program, Workspace *work, double *dv, double *restrict dy)
{
    const double *restrict rho = work->rho, *restrict weight = work->weight;
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
    const double *restrict on = program->present, *restrict h = program->bound;
    const double *restrict inverse_y = work->inverse_y, *restrict dy = work->push;
    double *restrict rho = work->rho, *restrict ratio = work->ratio;
    long sides = program->sides;
    for (long i = 0; i < sides; i++)
        rho[i] = on[i] * (work->product[i] - h[i]);
    newton(program, work, work->affine, work->push);
    for (long i = 0; i < sides; i++)
        ratio[i] = dy[i] * inverse_y[i];
    for (long i = 0; i < program->elastic_sides; i++)
        ratio[sides + i] = -dy[i] * inverse_y[sides + i];
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
    const double *restrict on = program->present, *restrict ratio = work->ratio;
    const double *restrict inverse_y = work->inverse_y, *restrict s = at->s;
    double *restrict push = work->push, *restrict rho = work->rho;
    double *restrict ds = step->s, *restrict dy = step->y;
    long sides = program->sides;
    for (long i = 0; i < program->pairs; i++)
        push[i] = target * inverse_y[i] + s[i] * (on[i] + ratio[i]) * ratio[i];
    for (long i = 0; i < sides; i++)
        rho[i] += push[i];
    for (long i = 0; i < program->elastic_sides; i++)
        rho[i] -= push[sides + i];
    newton(program, work, step->v, step->y);
    for (long i = 0; i < program->elastic_sides; i++)
        dy[sides + i] = -dy[i] * program->elastic[i];
    for (long i = 0; i < program->pairs; i++)
        ds[i] = push[i] - s[i] * (on[i] + dy[i] * inverse_y[i]);
}

/* How far s, and how far y, can go before an entry is 0. */
static void longest_steps(const Program *program, const Workspace *work, const Point *step,
                          double length[2])
{
    double primal = 1e-300, dual = 1e-300;
    for (long i = 0; i < program->pairs; i++) {
        primal = larger(primal, -step->s[i] * work->inverse_s[i]);
        dual = larger(dual, -step->y[i] * work->inverse_y[i]);
    }
    length[0] = 1 / primal, length[1] = 1 / dual;
}

/* Go `FRACTION` of the way, at most the whole step. */
static void advance(const Program *program, Point *at, const Point *step, Workspace *work,
                    const double length[2])
{
    double primal = smaller(1.0, FRACTION * length[0]), dual = smaller(1.0, FRACTION * length[1]);
    for (long i = 0; i < program->pairs; i++) {
        at->s[i] += primal * step->s[i];
        at->y[i] += dual * step->y[i];
    }
    for (long i = 0; i < program->sides; i++)
        work->product[i] += primal * work->step_product[i];
    for (long a = 0; a < program->size; a++)
        at->v[a] += primal * step->v[a];
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
    double pairs = 0, gap, value, length[2];
    double negligible = program->shared || program->elastic_sides ? NEGLIGIBLE_FAR : NEGLIGIBLE;
    for (long i = 0; i < program->pairs; i++)
        pairs += program->present[i];
    times(program, at->v, work->image, work->product);
    for (int count = 0, idle = 0; count < MOST_STEPS && idle < 3; count++, ++*steps) {
        measure(program, at, &gap, &value);
        if (!is_finite(gap + value) || gap <= GAP * fabs(value) + 1e-14)
            return;
        transposed_times(program, at->y, work->image, work->gradient);
        for (long a = 0; a < program->size; a++)
            work->gradient[a] += program->cost[a];
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
        longest_steps(program, work, step, length);
        advance(program, at, step, work, length);
        idle = larger(length[0], length[1]) < 1e-3 ? idle + 1 : 0;
    }
}
