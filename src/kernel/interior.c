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
       ds = e/y - (s/y) dy,                      dp = f/t + (p/t) dy.                            */
#include "program.h"

static const int MOST_STEPS = 60;
/* Where no vertex is found, an interior point this good is taken. */
static const double GAP = 1e-10, INFEASIBILITY = 1e-10;
/* How much of the way to the boundary a step goes. */
static const double FRACTION = 0.995;
static const double NO_PIVOT = 1e-14;

/* D and the inverses in it. */
void set_weights(const Rows *rows, const Sides *sides, const Point *at, Workspace *work)
{
    const double *restrict on = sides->present, *restrict elastic = sides->elastic;
    const double *restrict s = at->s, *restrict y = at->y, *restrict p = at->p, *restrict t = at->t;
    double *restrict inverse_s = work->inverse_s, *restrict inverse_y = work->inverse_y;
    double *restrict inverse_t = work->inverse_t, *restrict weight = work->weight;
    for (long i = 0; i < rows->sides; i++) {
        inverse_y[i] = on[i] / (on[i] > 0 ? y[i] : 1.0); /* no sum, which might be reordered */
        inverse_s[i] = 1.0 / s[i];
        weight[i] = y[i] * inverse_s[i];
    }
    for (long i = 0; i < rows->elastic; i++) {
        inverse_t[i] = elastic[i] / t[i];
        double inverse = s[i] * inverse_y[i] + p[i] * inverse_t[i];
        weight[i] = on[i] / (on[i] > 0 ? inverse : 1.0);
    }
}

/* Solve for dv and dy; `work` holds the factor, D, rho and gradient = c + G' y. */
static void newton(const Rows *rows, Workspace *work, double *dv, double *restrict dy)
{
    long n = rows->sides;
    double *restrict x = work->x;
    const double *restrict rho = work->rho, *restrict weight = work->weight;
    const double *restrict product = work->step_product;
    for (long i = 0; i < n; i++)
        x[i] = weight[i] * rho[i];
    transposed_times(rows, x, work->image, dv);
    for (long a = 0; a < rows->k + rows->shared; a++)
        dv[a] = -(work->gradient[a] + dv[a]);
    solve_factored(work->matrix, work->inverse_pivot, dv);
    times(rows, dv, work->image, work->step_product);
    for (long i = 0; i < n; i++)
        dy[i] = weight[i] * (product[i] + rho[i]);
}

/* The affine direction, towards mu = 0: there rho = G v - h. Only its ratios dy/y and dt/t are
   kept; the others follow from them: ds/s = -(1 + dy/y), dp/p = -(1 + dt/t). */
static void predict(const Rows *rows, const Sides *sides, Workspace *work)
{
    const double *restrict on = sides->present, *restrict h = sides->bound;
    const double *restrict product = work->product, *restrict dy = work->push_s;
    double *restrict rho = work->rho;
    for (long i = 0; i < rows->sides; i++)
        rho[i] = on[i] * (product[i] - h[i]);
    newton(rows, work, work->affine, work->push_s);
    for (long i = 0; i < rows->sides; i++)
        work->ratio_y[i] = dy[i] * work->inverse_y[i];
    for (long i = 0; i < rows->elastic; i++)
        work->ratio_t[i] = -dy[i] * work->inverse_t[i];
}

/* s y + p t after the longest affine steps. */
static double affine_gap(const Rows *rows, const Sides *sides, const Point *at,
                         const Workspace *work)
{
    const double *restrict ratio = work->ratio_y, *restrict ratio_t = work->ratio_t;
    double primal = 1, dual = 1, gap = 0;
    for (long i = 0; i < rows->sides; i++) {
        primal = larger(primal, sides->present[i] + ratio[i]);
        dual = larger(dual, -ratio[i]);
    }
    for (long i = 0; i < rows->elastic; i++) {
        primal = larger(primal, sides->elastic[i] + ratio_t[i]);
        dual = larger(dual, -ratio_t[i]);
    }
    primal = 1 / primal, dual = 1 / dual;
    for (long i = 0; i < rows->sides; i++)
        gap += at->s[i] * at->y[i] * (1 - primal * (1 + ratio[i])) * (1 + dual * ratio[i]);
    for (long i = 0; i < rows->elastic; i++)
        gap += at->p[i] * at->t[i] * sides->elastic[i] * (1 - primal * (1 + ratio_t[i])) *
               (1 + dual * ratio_t[i]);
    return gap;
}

/* The direction towards mu = target with Mehrotra's second-order term. With the affine direction
   ds', dy', dp', dt' and its ratios,

       e/y = (target - s y - ds' dy') / y  =  target/y - s + s (1 + dy'/y) dy'/y
       f/t = (target - p t - dp' dt') / t  =  target/t - p + p (1 + dt'/t) dt'/t
       rho = (G v - h)  +  e/y + s  -  f/t - p                                               */
static void correct(const Rows *rows, const Sides *sides, const Point *at, Workspace *work,
                    double target, Point *step)
{
    const double *restrict on = sides->present, *restrict elastic = sides->elastic;
    const double *restrict s = at->s, *restrict p = at->p, *restrict dy = step->y;
    const double *restrict ratio_y = work->ratio_y, *restrict ratio_t = work->ratio_t;
    const double *restrict inverse_y = work->inverse_y, *restrict inverse_t = work->inverse_t;
    double *restrict push_s = work->push_s, *restrict push_p = work->push_p;
    double *restrict rho = work->rho, *restrict ds = step->s, *restrict dp = step->p;
    for (long i = 0; i < rows->sides; i++) {
        push_s[i] = target * inverse_y[i] + s[i] * (on[i] + ratio_y[i]) * ratio_y[i];
        rho[i] += push_s[i];
    }
    for (long i = 0; i < rows->elastic; i++) {
        push_p[i] = target * inverse_t[i] + p[i] * (elastic[i] + ratio_t[i]) * ratio_t[i];
        rho[i] -= push_p[i];
    }
    newton(rows, work, step->v, step->y);
    for (long i = 0; i < rows->sides; i++)
        ds[i] = push_s[i] - s[i] * (on[i] + dy[i] * inverse_y[i]);
    for (long i = 0; i < rows->elastic; i++)
        dp[i] = push_p[i] - p[i] * (elastic[i] - dy[i] * inverse_t[i]);
}

/* Go `FRACTION` of the way to where one of s and p, or one of y and t, is 0, at most the whole
   step. Returns the longer of both lengths. */
static double advance(const Rows *rows, const Sides *sides, Point *at, const Point *step,
                      Workspace *work)
{
    long n = rows->sides, elastic_n = rows->elastic;
    const double *restrict ds = step->s, *restrict dy = step->y, *restrict dp = step->p;
    const double *restrict elastic = sides->elastic;
    double *restrict s = at->s, *restrict y = at->y, *restrict p = at->p, *restrict t = at->t;
    double primal = 1e-300, dual = 1e-300;
    for (long i = 0; i < n; i++) {
        primal = larger(primal, -ds[i] * work->inverse_s[i]);
        dual = larger(dual, -dy[i] * work->inverse_y[i]);
    }
    for (long i = 0; i < elastic_n; i++) {
        primal = larger(primal, -dp[i] / (elastic[i] > 0 ? p[i] : 1.0));
        dual = larger(dual, dy[i] * work->inverse_t[i]);
    }
    primal = smaller(1.0, FRACTION / primal), dual = smaller(1.0, FRACTION / dual);
    for (long i = 0; i < n; i++) {
        s[i] += primal * ds[i];
        y[i] += dual * dy[i];
        work->product[i] += primal * work->step_product[i];
    }
    for (long i = 0; i < elastic_n; i++) {
        p[i] += primal * dp[i];
        t[i] -= dual * dy[i] * elastic[i];
    }
    for (long a = 0; a < rows->k + rows->shared; a++)
        at->v[a] += primal * step->v[a];
    return larger(primal, dual);
}

/* Whether G v + s - p - h and c + G' y are small beside h and c. */
static int is_feasible(const Rows *rows, const Sides *sides, const Point *at, const Workspace *work)
{
    double primal = 0, bound = 1;
    for (long i = 0; i < rows->sides; i++) {
        double miss = work->product[i] + at->s[i] - at->p[i] - sides->bound[i];
        primal = larger(primal, sides->present[i] * fabs(miss));
        bound = larger(bound, fabs(sides->bound[i]));
    }
    long size = rows->k + rows->shared;
    double cost = larger(largest(sides->cost, size), 1.0);
    return primal <= INFEASIBILITY * bound &&
           largest(work->gradient, size) <= INFEASIBILITY * cost;
}

/* Follow the central path from `at`; the answer is left in its v and y: VERTEX (an optimum exact
   to rounding), CENTRAL (optimal within tolerance) or STUCK. */
int minimise(const Rows *rows, const Sides *sides, Point *at, Point *step, Workspace *work,
             long *steps)
{
    long n = rows->sides, size = rows->k + rows->shared;
    double pairs = 0;
    for (long i = 0; i < n; i++)
        pairs += sides->present[i] + sides->elastic[i];
    times(rows, at->v, work->image, work->product);
    for (int idle = 0; *steps < MOST_STEPS && idle < 3; ++*steps) {
        double gap = 0, value = 0;
        for (long i = 0; i < n; i++)
            gap += at->s[i] * at->y[i];
        for (long i = 0; i < rows->elastic; i++) {
            gap += at->p[i] * at->t[i] * sides->elastic[i];
            value += sides->penalty[i] * at->p[i];
        }
        for (long a = 0; a < size; a++)
            value += sides->cost[a] * at->v[a];
        if (!is_finite(gap + value))
            break;
        transposed_times(rows, at->y, work->image, work->gradient);
        for (long a = 0; a < size; a++)
            work->gradient[a] += sides->cost[a];
        if (gap <= GAP * fabs(value) + 1e-14 && is_feasible(rows, sides, at, work))
            return CENTRAL;
        set_weights(rows, sides, at, work);
        normal_matrix(rows, work->weight, cutoff(work->weight, n, size), work, work->matrix);
        cholesky(work->matrix, size, NO_PIVOT, work->inverse_pivot);
        predict(rows, sides, work);
        if (finite_termination(rows, sides, at, work, step))
            return VERTEX;
        double ahead = affine_gap(rows, sides, at, work) / larger(gap, 1e-300);
        correct(rows, sides, at, work, gap / pairs * smaller(1.0, ahead * ahead * ahead), step);
        idle = advance(rows, sides, at, step, work) < 1e-3 ? idle + 1 : 0;
    }
    return STUCK;
}
