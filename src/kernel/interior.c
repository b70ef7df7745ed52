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
/* Below this gap, what was lost in solving for a step is made good. */
static const double LATE = 1e-7;
static const double NO_PIVOT = 1e-14;
/* Rows whose weight is below a part of the (k + 1)-th largest, a vertex's last, are left out of the
   Gram matrix: first more of them, while the relative gap is above FAR and the pivots leave no
   doubt that the others determine z. (Not without a slack, where that costs steps.)
   None once a step has failed. */
static const double NEGLIGIBLE = 0x1p-10, FAR = 1e-3, NEGLIGIBLE_FAR = 0x1p-5, DOUBTFUL = 1e-4;

/* D and the inverses in it. */
void set_weights(const Program *program, const Point *at, Workspace *work)
{
    const double *restrict on = program->present, *restrict elastic = program->elastic;
    const double *restrict s = at->s, *restrict y = at->y, *restrict p = at->p, *restrict t = at->t;
    double *restrict inverse_s = work->inverse_s, *restrict inverse_y = work->inverse_y;
    double *restrict inverse_t = work->inverse_t, *restrict weight = work->weight;
    for (long i = 0; i < program->sides; i++) {
        inverse_y[i] = on[i] / (on[i] > 0 ? y[i] : 1.0); /* no sum, which might be reordered */
        inverse_s[i] = 1.0 / s[i];
        weight[i] = y[i] * inverse_s[i];
    }
    for (long i = 0; i < program->elastic_sides; i++) {
        inverse_t[i] = elastic[i] / t[i];
        double inverse = s[i] * inverse_y[i] + p[i] * inverse_t[i];
        weight[i] = on[i] / (on[i] > 0 ? inverse : 1.0);
    }
}

/* Solve for dv and dy; `work` holds the factor, D, rho and gradient = c + G' y. Each further round
   makes good what c + G' (y + dy) misses. */
static void newton(const Program *program, Workspace *work, int rounds, double *dv,
                   double *restrict dy)
{
    const double *restrict rho = work->rho, *restrict weight = work->weight;
    const double *restrict product = work->step_product;
    fill(dv, program->stride, 0.0);
    for (long i = 0; i < program->sides; i++)
        dy[i] = weight[i] * rho[i]; /* of dv = 0 */
    for (int round = 0; round < rounds; round++) {
        transposed_times(program, dy, work->image, work->pull);
        for (long a = 0; a < program->k + program->shared; a++)
            work->pull[a] = -(work->gradient[a] + work->pull[a]);
        solve_factored(work->matrix, work->inverse_pivot, work->pull);
        for (long a = 0; a < program->k + program->shared; a++)
            dv[a] += work->pull[a];
        times(program, dv, work->image, work->step_product);
        for (long i = 0; i < program->sides; i++)
            dy[i] = weight[i] * (product[i] + rho[i]);
    }
}

/* The affine direction, towards mu = 0: there rho = G v - h. Only its ratios dy/y and dt/t are
   kept; the others follow from them: ds/s = -(1 + dy/y), dp/p = -(1 + dt/t). */
static void predict(const Program *program, Workspace *work,
                    int rounds)
{
    const double *restrict on = program->present, *restrict h = program->bound;
    const double *restrict product = work->product, *restrict dy = work->push_s;
    double *restrict rho = work->rho;
    for (long i = 0; i < program->sides; i++)
        rho[i] = on[i] * (product[i] - h[i]);
    newton(program, work, rounds, work->affine, work->push_s);
    for (long i = 0; i < program->sides; i++)
        work->ratio_y[i] = dy[i] * work->inverse_y[i];
    for (long i = 0; i < program->elastic_sides; i++)
        work->ratio_t[i] = -dy[i] * work->inverse_t[i];
}

/* s y + p t after the longest affine steps. */
static double affine_gap(const Program *program, const Point *at,
                         const Workspace *work)
{
    const double *restrict ratio = work->ratio_y, *restrict ratio_t = work->ratio_t;
    double primal = 1, dual = 1, gap = 0;
    for (long i = 0; i < program->sides; i++) {
        primal = larger(primal, program->present[i] + ratio[i]);
        dual = larger(dual, -ratio[i]);
    }
    for (long i = 0; i < program->elastic_sides; i++) {
        primal = larger(primal, program->elastic[i] + ratio_t[i]);
        dual = larger(dual, -ratio_t[i]);
    }
    primal = 1 / primal, dual = 1 / dual;
    for (long i = 0; i < program->sides; i++)
        gap += at->s[i] * at->y[i] * (1 - primal * (1 + ratio[i])) * (1 + dual * ratio[i]);
    for (long i = 0; i < program->elastic_sides; i++)
        gap += at->p[i] * at->t[i] * program->elastic[i] * (1 - primal * (1 + ratio_t[i])) *
               (1 + dual * ratio_t[i]);
    return gap;
}

/* The direction towards mu = target with Mehrotra's second-order term. With the affine direction
   ds', dy', dp', dt' and its ratios,

       e/y = (target - s y - ds' dy') / y  =  target/y - s + s (1 + dy'/y) dy'/y
       f/t = (target - p t - dp' dt') / t  =  target/t - p + p (1 + dt'/t) dt'/t
       rho = (G v - h)  +  e/y + s  -  f/t - p                                               */
static void correct(const Program *program, const Point *at, Workspace *work,
                    double target, int rounds, Point *step)
{
    const double *restrict on = program->present, *restrict elastic = program->elastic;
    const double *restrict s = at->s, *restrict p = at->p;
    const double *restrict ratio_y = work->ratio_y, *restrict ratio_t = work->ratio_t;
    const double *restrict inverse_y = work->inverse_y, *restrict inverse_t = work->inverse_t;
    double *restrict push_s = work->push_s, *restrict push_p = work->push_p;
    double *restrict rho = work->rho, *restrict ds = step->s, *restrict dp = step->p;
    const double *restrict dy = step->y;
    for (long i = 0; i < program->sides; i++) {
        push_s[i] = target * inverse_y[i] + s[i] * (on[i] + ratio_y[i]) * ratio_y[i];
        rho[i] += push_s[i];
    }
    for (long i = 0; i < program->elastic_sides; i++) {
        push_p[i] = target * inverse_t[i] + p[i] * (elastic[i] + ratio_t[i]) * ratio_t[i];
        rho[i] -= push_p[i];
    }
    newton(program, work, rounds, step->v, step->y);
    for (long i = 0; i < program->sides; i++)
        ds[i] = push_s[i] - s[i] * (on[i] + dy[i] * inverse_y[i]);
    for (long i = 0; i < program->elastic_sides; i++)
        dp[i] = push_p[i] - p[i] * (elastic[i] - dy[i] * inverse_t[i]);
}

/* How far s and p, and how far y and t, can go before one of them is 0. */
static void longest_steps(const Program *program, const Point *at,
                          const Workspace *work, const Point *step, double length[2])
{
    const double *restrict ds = step->s, *restrict dy = step->y, *restrict dp = step->p;
    const double *restrict elastic = program->elastic, *restrict p = at->p;
    double primal = 1e-300, dual = 1e-300;
    for (long i = 0; i < program->sides; i++) {
        primal = larger(primal, -ds[i] * work->inverse_s[i]);
        dual = larger(dual, -dy[i] * work->inverse_y[i]);
    }
    for (long i = 0; i < program->elastic_sides; i++) {
        primal = larger(primal, -dp[i] / (elastic[i] > 0 ? p[i] : 1.0));
        dual = larger(dual, dy[i] * work->inverse_t[i]);
    }
    length[0] = 1 / primal, length[1] = 1 / dual;
}

/* Go `FRACTION` of the way, at most the whole step. */
static void advance(const Program *program, Point *at, const Point *step,
                    Workspace *work, const double length[2])
{
    double primal = smaller(1.0, FRACTION * length[0]), dual = smaller(1.0, FRACTION * length[1]);
    const double *restrict ds = step->s, *restrict dy = step->y, *restrict dp = step->p;
    double *restrict s = at->s, *restrict y = at->y, *restrict p = at->p, *restrict t = at->t;
    for (long i = 0; i < program->sides; i++) {
        s[i] += primal * ds[i];
        y[i] += dual * dy[i];
        work->product[i] += primal * work->step_product[i];
    }
    for (long i = 0; i < program->elastic_sides; i++) {
        p[i] += primal * dp[i];
        t[i] -= dual * dy[i] * program->elastic[i];
    }
    for (long a = 0; a < program->k + program->shared; a++)
        at->v[a] += primal * step->v[a];
}

/* Whether G v + s - p - h and c + G' y are small beside h and c. */
static int is_feasible(const Program *program, const Point *at, const Workspace *work)
{
    double primal = 0, bound = 1;
    for (long i = 0; i < program->sides; i++) {
        double miss = work->product[i] + at->s[i] - at->p[i] - program->bound[i];
        primal = larger(primal, program->present[i] * fabs(miss));
        bound = larger(bound, fabs(program->bound[i]));
    }
    long size = program->k + program->shared;
    double cost = larger(largest(program->cost, size), 1.0);
    return primal <= INFEASIBILITY * bound &&
           largest(work->gradient, size) <= INFEASIBILITY * cost;
}

/* The duality gap s y + p t, and the value c v + penalty p. */
static void measure(const Program *program, const Point *at, double *gap, double *value)
{
    *gap = *value = 0;
    for (long i = 0; i < program->sides; i++)
        *gap += at->s[i] * at->y[i];
    for (long i = 0; i < program->elastic_sides; i++) {
        *gap += at->p[i] * at->t[i] * program->elastic[i];
        *value += program->penalty[i] * at->p[i];
    }
    for (long a = 0; a < program->k + program->shared; a++)
        *value += program->cost[a] * at->v[a];
}

/* Copy v and y to where the best interior point is kept, or back. */
static void copy_answer(const Program *program, const double *v, const double *y, double *to_v,
                        double *to_y)
{
    memcpy(to_v, v, sizeof(double) * (size_t)program->stride);
    memcpy(to_y, y, sizeof(double) * (size_t)program->sides);
}

/* Factor G' D G without negligible rows; returns the smallest pivot. */
static double factor(const Program *program, double negligible, Workspace *work)
{
    long size = program->k + program->shared;
    double least = negligible * large_weight(work->weight, program->sides, size);
    normal_matrix(program, work->weight, least, work, work->matrix);
    return cholesky(work->matrix, size, NO_PIVOT, work->inverse_pivot);
}

/* Follow the central path from `at`. Returns 1 if its v and y are an optimum: a vertex exact to
   rounding, or a point within tolerance; else 0. */
int minimise(const Program *program, Point *at, Point *step, Workspace *work, int64_t *steps)
{
    long size = program->k + program->shared;
    double pairs = 0, gap, value, length[2];
    double negligible = program->shared || program->elastic_sides ? NEGLIGIBLE_FAR : NEGLIGIBLE;
    int found = 0;
    for (long i = 0; i < program->sides; i++)
        pairs += program->present[i] + program->elastic[i];
    times(program, at->v, work->image, work->product);
    for (int count = 0, idle = 0; count < MOST_STEPS && idle < 3; count++, ++*steps) {
        measure(program, at, &gap, &value);
        if (!is_finite(gap + value))
            break;
        transposed_times(program, at->y, work->image, work->gradient);
        for (long a = 0; a < size; a++)
            work->gradient[a] += program->cost[a];
        if (gap <= GAP * fabs(value) + 1e-14) {
            int feasible = is_feasible(program, at, work);
            if (!feasible && found)
                break;
            if (feasible) { /* good enough; the last such point is kept */
                found = 1;
                copy_answer(program, at->v, at->y, work->best_v, work->best_y);
            }
            if (feasible && gap <= LEAST_GAP * fabs(value) + 1e-14)
                break;
        }
        set_weights(program, at, work);
        if (gap <= FAR * fabs(value))
            negligible = smaller(negligible, NEGLIGIBLE);
        if (idle)
            negligible = 0;
        if (factor(program, negligible, work) < DOUBTFUL && negligible == NEGLIGIBLE_FAR)
            factor(program, negligible = NEGLIGIBLE, work);
        int rounds = gap < LATE * fabs(value) ? 3 : 1;
        predict(program, work, rounds);
        if (finite_termination(program, at, work, step))
            return 1;
        double ahead = affine_gap(program, at, work) / larger(gap, 1e-300);
        double target = gap / pairs * smaller(1.0, ahead * ahead * ahead);
        correct(program, at, work, target, rounds, step);
        longest_steps(program, at, work, step, length);
        advance(program, at, step, work, length);
        idle = larger(length[0], length[1]) < 1e-3 ? idle + 1 : 0;
    }
    if (found)
        copy_answer(program, work->best_v, work->best_y, at->v, at->y);
    return found;
}
