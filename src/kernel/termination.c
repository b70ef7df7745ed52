/* Finite termination: from an interior point to the optimum itself, exact to rounding (Ye 1992;
   Mehrotra and Ye 1993).

   Near the optimum it shows which sides bind. If A are these, and C the elastic ones at their
   penalty, then the optimal face is

       G_A v = h_A,        G_A' y_A = -(c + G_C' penalty_C),

   usually a vertex. Projecting onto it needs nothing new: with the factor of M = G' D G that the
   interior-point step has anyway,

       v += M^-1 G_A' D_A (h_A - G_A v),   y_A -= D_A G_A M^-1 (c + G_C' penalty_C + G_A' y_A)

   shrink both residuals by about the ratio of the weights outside A to those inside. What comes
   out is then checked: all sides and all signs. */
#include "program.h"

static const double ROUNDING = 1e-12;
static const int MOST_REFINEMENTS = 20;
/* Tapia's indicators go to 0 or -1; nearer to the middle than this they have not decided. */
static const double DOUBT = 0.4;
static const double SLACK = 0, BINDS = 1, CAPPED = 2;

/* The sides of rows that bind come first, then all 2 k + 1 others (of weight 0 if slack). */
typedef struct {
    const Rows *rows;
    const int32_t *index; /* of the table */
    const double *sign, *rate;
    long picked, count; /* sides of rows, and all */
} Face;

static void face_times(const Face *face, const double *v, double *restrict out)
{
    const Rows *rows = face->rows;
    long k = rows->k, picked = face->picked;
    double slack = rows->shared ? v[k] : 0.0;
    rows_times(rows, face->index, picked, v, out);
    for (long i = 0; i < picked; i++)
        out[i] = face->sign[i] * out[i] - face->rate[i] * slack;
    for (long a = 0; a < k; a++) {
        out[picked + a] = v[a];
        out[picked + k + a] = -v[a];
    }
    out[picked + 2 * k] = -slack;
}

static void face_transposed_times(const Face *face, const double *restrict x,
                                  double *restrict image, double *restrict out)
{
    const Rows *rows = face->rows;
    long k = rows->k, picked = face->picked;
    double pull = 0;
    for (long i = 0; i < picked; i++) {
        image[i] = face->sign[i] * x[i];
        pull += face->rate[i] * x[i];
    }
    rows_transposed_times(rows, face->index, picked, image, out);
    for (long a = 0; a < k; a++)
        out[a] += x[picked + a] - x[picked + k + a];
    if (rows->shared)
        out[k] = -pull - x[picked + 2 * k];
}

/* Set work.kind by Tapia's indicators of the affine direction. Along it, y/y -> 1 and s/s -> 0
   where a side binds, the reverse where it is slack, whatever the scale; the middle, dy/y = -1/2,
   separates them. So does dt/t where it is elastic. Returns whether it is worth going on. */
static int classify(const Rows *rows, const Sides *sides, Workspace *work)
{
    double *restrict kind = work->kind, doubts = 0, binding = 0, picked = 0;
    const double *restrict ratio_y = work->ratio_y, *restrict ratio_t = work->ratio_t;
    for (long i = 0; i < rows->sides; i++) {
        kind[i] = sides->present[i] * (ratio_y[i] + 0.5) > 0 ? BINDS : SLACK;
        doubts += fabs(ratio_y[i] + 0.5) < DOUBT ? 1.0 : 0.0;
    }
    for (long i = 0; i < rows->elastic; i++) {
        kind[i] = ratio_t[i] <= -0.5 ? CAPPED : kind[i];
        doubts += fabs(ratio_t[i] + 0.5) < DOUBT ? 1.0 : 0.0;
    }
    for (long i = 0; i < rows->sides; i++) {
        double binds = kind[i] == BINDS ? 1.0 : 0.0;
        binding += binds;
        picked += i < 2 * rows->m ? binds : 0.0;
    }
    int vertex = binding == (double)(rows->k + rows->shared);
    return picked <= (double)rows->m && (doubts == 0 || vertex);
}

/* List the face, with the full affine step on it: v in spare.v, y, D and h in work.face_. */
static Face gather(const Rows *rows, const Sides *sides, const Point *at, Workspace *work,
                   Point *spare)
{
    long m = rows->m, picked = 0;
    for (long i = 0; i < 2 * m; i++) {
        if (work->kind[i] != BINDS)
            continue;
        long j = i < m ? i : i - m;
        work->kept[picked] = (int32_t)i;
        work->face_index[picked] = rows->index[j];
        work->face_sign[picked] = i < m ? 1.0 : -1.0;
        work->face_rate[picked] = i < m ? rows->upper_rate[j] : rows->lower_rate[j];
        picked++;
    }
    long count = picked + 2 * rows->k + 1, size = rows->k + rows->shared;
    for (long i = 0; i < count; i++) {
        long side = i < picked ? work->kept[i] : i - picked + 2 * m;
        double binds = work->kind[side] == BINDS ? 1.0 : 0.0;
        work->face_y[i] = binds * at->y[side] * (1.0 + work->ratio_y[side]);
        work->face_weight[i] = binds * work->weight[side];
        work->face_bound[i] = binds * sides->bound[side];
    }
    for (long a = 0; a < size; a++) {
        spare->v[a] = at->v[a] + work->affine[a];
        work->constant[a] = sides->cost[a];
    }
    fill(spare->v + size, rows->stride - size, 0.0);
    if (rows->elastic) {
        for (long i = 0; i < rows->sides; i++)
            work->x[i] = work->kind[i] == CAPPED ? sides->penalty[i] : 0.0;
        transposed_times(rows, work->x, work->image, work->pull);
        for (long a = 0; a < size; a++)
            work->constant[a] += work->pull[a];
    }
    return (Face){rows, work->face_index, work->face_sign, work->face_rate, picked, count};
}

/* Project v and y onto the face; whether both residuals are down to rounding. */
static int refine(const Face *face, Workspace *work, double *v)
{
    long size = face->rows->k + face->rows->shared, stride = face->rows->stride;
    double *y = work->face_y, *weight = work->face_weight, *x = work->x, *product = work->face_product;
    double primal = 0, dual = 0, before = 1e300;
    fill(work->pull, stride, 0.0);
    for (int i = 0; i < MOST_REFINEMENTS; i++) {
        face_times(face, v, product);
        primal = 0;
        for (long j = 0; j < face->count; j++) {
            double residual = weight[j] > 0 ? work->face_bound[j] - product[j] : 0.0;
            primal = larger(primal, fabs(residual));
            x[j] = weight[j] * residual;
        }
        face_transposed_times(face, x, work->image, work->affine);
        face_transposed_times(face, y, work->image, work->pull);
        for (long a = 0; a < size; a++)
            work->pull[a] += work->constant[a];
        dual = largest(work->pull, size);
        if (primal + dual <= 1e-15 || !(primal + dual < 0.2 * before))
            break;
        before = primal + dual;
        solve_factored(work->matrix, work->inverse_pivot, work->affine);
        for (long a = 0; a < size; a++)
            v[a] += work->affine[a];
        solve_factored(work->matrix, work->inverse_pivot, work->pull);
        face_times(face, work->pull, product);
        for (long j = 0; j < face->count; j++)
            y[j] -= weight[j] * product[j];
    }
    return primal <= ROUNDING * larger(largest(v, size), 1.0) &&
           dual <= ROUNDING * larger(largest(y, face->count), 1.0);
}

/* Whether the multipliers have their signs, and no side is violated at v, nor short of its bound
   where it is at its penalty. */
static int is_optimal(const Face *face, const Sides *sides, Workspace *work, const double *v)
{
    const Rows *rows = face->rows;
    double highest = 1, lowest = 0, worst = 0, scale = larger(largest(v, rows->k + rows->shared), 1.0);
    for (long i = 0; i < face->count; i++) {
        highest = larger(highest, work->face_y[i]);
        lowest = smaller(lowest, work->face_y[i]);
    }
    for (long i = 0; i < (rows->elastic ? face->picked : 0); i++)
        if (sides->elastic[work->kept[i]] > 0)
            lowest = smaller(lowest, sides->penalty[work->kept[i]] - work->face_y[i]);
    if (!(lowest >= -ROUNDING * highest))
        return 0;
    times(rows, v, work->image, work->step_product);
    for (long i = 0; i < rows->sides; i++) {
        double over = sides->present[i] * (work->step_product[i] - sides->bound[i]);
        worst = larger(worst, work->kind[i] == CAPPED ? -over : over);
    }
    return worst <= ROUNDING * scale;
}

/* Returns 1 if `at` now holds an optimum (v and y), 0 if nothing has changed; uses work.affine,
   work.x and work.step_product up. */
int finite_termination(const Rows *rows, const Sides *sides, Point *at, Workspace *work,
                       Point *spare)
{
    if (!classify(rows, sides, work))
        return 0;
    Face face = gather(rows, sides, at, work, spare);
    if (!refine(&face, work, spare->v) || !is_optimal(&face, sides, work, spare->v))
        return 0;
    for (long i = 0; i < rows->sides; i++)
        at->y[i] = work->kind[i] == CAPPED ? sides->penalty[i] : 0.0;
    for (long i = 0; i < face.count; i++) { /* clipped to the interval that rounding may leave */
        long side = i < face.picked ? work->kept[i] : i - face.picked + 2 * rows->m;
        double y = larger(work->face_y[i], 0.0);
        at->y[side] = sides->elastic[side] > 0 ? smaller(y, sides->penalty[side]) : y;
    }
    for (long a = 0; a < rows->k + rows->shared; a++)
        at->v[a] = spare->v[a];
    return 1;
}
