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
/* Where no vertex is found, an interior point this good is taken, or a better one. */
static const double GAP = 1e-10, LEAST_GAP = 1e-13, INFEASIBILITY = 5e-11;
/* How much of the way to the boundary a step goes. */
static const double FRACTION = 0.995;
/* Programs of fewer variables do without centrality correctors, since a factor costs ever more
   than a solve. Steps longer than LONG need none; the others aim FURTHER, and must GAIN this much
   in both lengths together. */
static const long FEW = 100;
static const double LONG = 0.95, FURTHER = 0.3, GAIN = 0.03;
/* While the relative gap is above this, the Gram matrix is computed in single precision. */
static const double ROUGH = 1e-3, DOUBTFUL = 1e-4;
/* Below this gap, what was lost in solving for a step is made good. */
static const double LATE = 1e-7;
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
    for (int round = 0; round < work->refinements; round++) { /* what c + G' (y + dy) misses */
        transposed_times(rows, dy, work->image, work->pull);
        for (long a = 0; a < rows->k + rows->shared; a++)
            work->pull[a] = -(work->gradient[a] + work->pull[a]);
        solve_factored(work->matrix, work->inverse_pivot, work->pull);
        for (long a = 0; a < rows->k + rows->shared; a++)
            dv[a] += work->pull[a];
        times(rows, dv, work->image, work->step_product);
        for (long i = 0; i < n; i++)
            dy[i] = weight[i] * (product[i] + rho[i]);
    }
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

/* The step for rho, where e/y + s and f/t + p are in push_s and push_p. */
static void direction(const Rows *rows, const Sides *sides, const Point *at, Workspace *work,
                      Point *step)
{
    const double *restrict on = sides->present, *restrict elastic = sides->elastic;
    const double *restrict s = at->s, *restrict p = at->p, *restrict dy = step->y;
    double *restrict ds = step->s, *restrict dp = step->p;
    newton(rows, work, step->v, step->y);
    for (long i = 0; i < rows->sides; i++)
        ds[i] = work->push_s[i] - s[i] * (on[i] + dy[i] * work->inverse_y[i]);
    for (long i = 0; i < rows->elastic; i++)
        dp[i] = work->push_p[i] - p[i] * (elastic[i] - dy[i] * work->inverse_t[i]);
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
    const double *restrict s = at->s, *restrict p = at->p;
    const double *restrict ratio_y = work->ratio_y, *restrict ratio_t = work->ratio_t;
    const double *restrict inverse_y = work->inverse_y, *restrict inverse_t = work->inverse_t;
    double *restrict push_s = work->push_s, *restrict push_p = work->push_p;
    double *restrict rho = work->rho;
    for (long i = 0; i < rows->sides; i++) {
        push_s[i] = target * inverse_y[i] + s[i] * (on[i] + ratio_y[i]) * ratio_y[i];
        rho[i] += push_s[i];
    }
    for (long i = 0; i < rows->elastic; i++) {
        push_p[i] = target * inverse_t[i] + p[i] * (elastic[i] + ratio_t[i]) * ratio_t[i];
        rho[i] -= push_p[i];
    }
    direction(rows, sides, at, work, step);
}

/* One of Gondzio's (1996) centrality correctors: the products s y and p t at the end of steps of
   these lengths are asked to come back into [0.1, 10] target; those far above by no more than
   10 target. */
static void recentre(const Rows *rows, const Sides *sides, const Point *at, Workspace *work,
                     double target, const double length[2], const Point *step, Point *other)
{
    double low = 0.1 * target, high = 10 * target, primal = smaller(1.0, length[0] + FURTHER);
    double dual = smaller(1.0, length[1] + FURTHER);
    for (long i = 0; i < rows->sides; i++) {
        double end = (at->s[i] + primal * step->s[i]) * (at->y[i] + dual * step->y[i]);
        double push = larger(smaller(larger(end, low), high) - end, -high) * work->inverse_y[i];
        work->push_s[i] += push;
        work->rho[i] += push;
    }
    for (long i = 0; i < rows->elastic; i++) {
        double end = (at->p[i] + primal * step->p[i]) * (at->t[i] - dual * step->y[i]);
        double push = larger(smaller(larger(end, low), high) - end, -high) * work->inverse_t[i];
        work->push_p[i] += push;
        work->rho[i] -= push;
    }
    direction(rows, sides, at, work, other);
}

/* How far s and p, and how far y and t, can go before one of them is 0. */
static void longest_steps(const Rows *rows, const Sides *sides, const Point *at,
                          const Workspace *work, const Point *step, double length[2])
{
    const double *restrict ds = step->s, *restrict dy = step->y, *restrict dp = step->p;
    const double *restrict elastic = sides->elastic, *restrict p = at->p;
    double primal = 1e-300, dual = 1e-300;
    for (long i = 0; i < rows->sides; i++) {
        primal = larger(primal, -ds[i] * work->inverse_s[i]);
        dual = larger(dual, -dy[i] * work->inverse_y[i]);
    }
    for (long i = 0; i < rows->elastic; i++) {
        primal = larger(primal, -dp[i] / (elastic[i] > 0 ? p[i] : 1.0));
        dual = larger(dual, dy[i] * work->inverse_t[i]);
    }
    length[0] = 1 / primal, length[1] = 1 / dual;
}

/* Go `FRACTION` of the way, at most the whole step. */
static void advance(const Rows *rows, const Sides *sides, Point *at, const Point *step,
                    Workspace *work, const double length[2])
{
    double primal = smaller(1.0, FRACTION * length[0]), dual = smaller(1.0, FRACTION * length[1]);
    const double *restrict ds = step->s, *restrict dy = step->y, *restrict dp = step->p;
    double *restrict s = at->s, *restrict y = at->y, *restrict p = at->p, *restrict t = at->t;
    for (long i = 0; i < rows->sides; i++) {
        s[i] += primal * ds[i];
        y[i] += dual * dy[i];
        work->product[i] += primal * work->step_product[i];
    }
    for (long i = 0; i < rows->elastic; i++) {
        p[i] += primal * dp[i];
        t[i] -= dual * dy[i] * sides->elastic[i];
    }
    for (long a = 0; a < rows->k + rows->shared; a++)
        at->v[a] += primal * step->v[a];
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
int minimise(const Rows *rows, const Sides *sides, Point *at, Point *step, Point *other,
             Workspace *work, long *steps)
{
    long n = rows->sides, size = rows->k + rows->shared;
    double pairs = 0;
    int rough = 1, central = 0;
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
        if (gap <= GAP * fabs(value) + 1e-14) {
            int feasible = is_feasible(rows, sides, at, work);
            if (!feasible && central)
                break;
            if (feasible) { /* good enough; the last such point is kept */
                central = 1;
                memcpy(work->best_v, at->v, sizeof(double) * (size_t)rows->stride);
                memcpy(work->best_y, at->y, sizeof(double) * (size_t)n);
            }
            if (feasible && gap <= LEAST_GAP * fabs(value) + 1e-14)
                break;
        }
        set_weights(rows, sides, at, work);
        work->refinements = gap < LATE * fabs(value) ? 2 : 0;
        double least = cutoff(work->weight, n, size);
        rough = rough && gap > ROUGH * fabs(value);
        normal_matrix(rows, work->weight, least, rough, work, work->matrix);
        double pivot = cholesky(work->matrix, size, NO_PIVOT, work->inverse_pivot);
        if (rough && pivot < DOUBTFUL) { /* single precision does not do here, nor later */
            rough = 0;
            normal_matrix(rows, work->weight, least, 0, work, work->matrix);
            cholesky(work->matrix, size, NO_PIVOT, work->inverse_pivot);
        }
        predict(rows, sides, work);
        if (finite_termination(rows, sides, at, work, step))
            return VERTEX;
        double ahead = affine_gap(rows, sides, at, work) / larger(gap, 1e-300);
        double target = gap / pairs * smaller(1.0, ahead * ahead * ahead), length[2], longer[2];
        correct(rows, sides, at, work, target, step);
        longest_steps(rows, sides, at, work, step, length);
        for (int i = 0; i < (size < FEW ? 0 : 2) && smaller(length[0], length[1]) < LONG; i++) {
            recentre(rows, sides, at, work, target, length, step, other);
            longest_steps(rows, sides, at, work, other, longer);
            if (smaller(longer[0], 1.0) + smaller(longer[1], 1.0) <
                smaller(length[0], 1.0) + smaller(length[1], 1.0) + GAIN) {
                times(rows, step->v, work->image, work->step_product);
                break;
            }
            Point *swap = step;
            step = other, other = swap;
            memcpy(length, longer, sizeof longer);
        }
        advance(rows, sides, at, step, work, length);
        idle = larger(length[0], length[1]) < 1e-3 ? idle + 1 : 0;
    }
    if (!central)
        return STUCK;
    memcpy(at->v, work->best_v, sizeof(double) * (size_t)rows->stride);
    memcpy(at->y, work->best_y, sizeof(double) * (size_t)n);
    return CENTRAL;
}
