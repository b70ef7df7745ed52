/* Finite termination: from an interior point to the optimum itself, exact to rounding (Ye 1992;
   Mehrotra and Ye 1993).

   Near the optimum it shows which sides bind. If A are these, and C the elastic ones at their
   penalty, then the optimal face is

       G_A v = h_A,        G_A' y_A + G_C' penalty_C + c = 0,

   usually a vertex. Projecting onto it needs nothing new: with the factor of M = G' D G that the
   interior-point step has anyway,

       v += M^-1 G_A' D_A (h_A - G_A v),        y_A -= D_A G_A M^-1 (G' y + c)

   shrink both residuals by about the ratio of the weights outside A to those inside. What comes
   out is then checked: all sides and all signs. */
#include "program.h"

static const double ROUNDING = 1e-12;
static const int MOST_REFINEMENTS = 20;
/* Tapia's indicators go to 0 or -1; nearer to the middle than this they have not decided. */
static const double DOUBT = 0.4;
static const double SLACK = 0, BINDS = 1, CAPPED = 2;

/* Set work.kind by Tapia's indicators of the affine direction. Along it, y/y -> 1 and s/s -> 0
   where a side binds, the reverse where it is slack, whatever the scale; the middle, dy/y = -1/2,
   separates them. So does dt/t where it is elastic. Returns whether all have decided. */
static int classify(const Program *program, Workspace *work)
{
    const double *ratio = work->ratio, *ratio_t = ratio + program->sides;
    double *kind = work->kind, doubts = 0;
    for (long i = 0; i < program->pairs; i++)
        doubts += fabs(ratio[i] + 0.5) < DOUBT ? 1.0 : 0.0;
    for (long i = 0; i < program->sides; i++)
        kind[i] = program->present[i] * (ratio[i] + 0.5) > 0 ? BINDS : SLACK;
    for (long i = 0; i < program->elastic_sides; i++)
        kind[i] = ratio_t[i] <= -0.5 ? CAPPED : kind[i];
    return doubts == 0;
}

/* Entries of the face's sides from those of all sides. */
static void gather(const Program *program, const Program *face, const int32_t *rows,
                   const double *from, double *to)
{
    long m = program->m, tail = 2 * program->k + 1;
    fill(to, face->sides, 0.0);
    for (long i = 0; rows[i] >= 0; i++) {
        to[i] = from[rows[i]];
        to[face->m + i] = from[m + rows[i]];
    }
    memcpy(to + 2 * face->m, from + 2 * m, sizeof(double) * (size_t)tail);
}

/* The rows of which a side binds, as a program, listed in work.kept with -1 behind; only what
   products need. */
static Program face_of(const Program *program, Workspace *work)
{
    Program face = *program;
    const double *kind = work->kind;
    long m = program->m, count = 0;
    face.index = work->face_index, face.rate = work->face_rate, face.bound = work->face_bound;
    for (long j = 0; j < m; j++) {
        work->kept[count] = (int32_t)j;
        face.index[count] = program->index[j];
        count += kind[j] == BINDS || kind[m + j] == BINDS;
    }
    work->kept[count] = -1;
    face.m = pad_rows(face.index, count, face.index[0]); /* any row: its sides have no weight */
    face.sides = sides_of(face.m, face.k);
    gather(program, &face, work->kept, program->rate, face.rate);
    gather(program, &face, work->kept, program->bound, face.bound);
    return face;
}

/* Project v, and the face's multipliers, onto the face; whether both residuals are down to
   rounding. work.constant = c + G_C' penalty_C. */
static int refine(const Program *face, Workspace *work, double *v)
{
    long n = face->sides, size = face->size;
    const double *weight = work->face_weight, *product = work->step_product;
    double *x = work->x, *y = work->face_y, primal = 0, dual = 0, before = 1e300;
    for (int i = 0; i < MOST_REFINEMENTS; i++) {
        times(face, v, work->image, work->step_product);
        primal = 0;
        for (long j = 0; j < n; j++) {
            double residual = weight[j] > 0 ? face->bound[j] - product[j] : 0.0;
            primal = larger(primal, fabs(residual));
            x[j] = weight[j] * residual;
        }
        transposed_times(face, x, work->image, work->affine);
        transposed_times(face, y, work->image, work->pull);
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
        times(face, work->pull, work->image, work->step_product);
        for (long j = 0; j < n; j++)
            y[j] -= weight[j] * product[j];
    }
    return primal <= ROUNDING * larger(largest(v, size), 1.0) &&
           dual <= ROUNDING * larger(largest(y, n), 1.0);
}

/* The full affine step, projected onto the face, in vertex.v and vertex.y; whether it is on it. */
static int project(const Program *program, const Point *at, Workspace *work, Point *vertex)
{
    const double *kind = work->kind;
    double *y = vertex->y, *binding_weight = vertex->s;
    long m = program->m, size = program->size;
    Program face = face_of(program, work);
    for (long a = 0; a < program->stride; a++)
        vertex->v[a] = at->v[a] + work->affine[a];
    for (long i = 0; i < program->sides; i++) {
        double binds = kind[i] == BINDS ? 1.0 : 0.0;
        y[i] = kind[i] == CAPPED ? program->penalty[i] : 0.0;
        work->x[i] = binds * at->y[i] * (1.0 + work->ratio[i]);
        binding_weight[i] = binds * work->weight[i];
    }
    transposed_times(program, y, work->image, work->constant);
    for (long a = 0; a < size; a++)
        work->constant[a] += program->cost[a];
    gather(program, &face, work->kept, work->x, work->face_y);
    gather(program, &face, work->kept, binding_weight, work->face_weight);
    if (!refine(&face, work, vertex->v))
        return 0;
    for (long i = 0; work->kept[i] >= 0; i++) {
        y[work->kept[i]] += work->face_y[i];
        y[m + work->kept[i]] += work->face_y[face.m + i];
    }
    for (long i = 0; i < 2 * program->k + 1; i++)
        y[2 * m + i] += work->face_y[2 * face.m + i];
    return 1;
}

/* Whether the multipliers have their signs, and no side is violated at v, nor short of its bound
   where it is at its penalty. */
static int is_optimal(const Program *program, Workspace *work, const Point *vertex)
{
    const double *y = vertex->y, *kind = work->kind;
    double lowest = 0, worst = 0;
    for (long i = 0; i < program->sides; i++)
        lowest = smaller(lowest, y[i]);
    for (long i = 0; i < program->elastic_sides; i++)
        if (program->elastic[i] > 0)
            lowest = smaller(lowest, program->penalty[i] - y[i]);
    if (!(lowest >= -ROUNDING * larger(largest(y, program->sides), 1.0)))
        return 0;
    times(program, vertex->v, work->image, work->step_product);
    for (long i = 0; i < program->sides; i++) {
        double over = program->present[i] * (work->step_product[i] - program->bound[i]);
        worst = larger(worst, kind[i] == CAPPED ? -over : over);
    }
    return worst <= ROUNDING * larger(largest(vertex->v, program->size), 1.0);
}

/* Returns 1 if `at` now holds an optimum (v and y), 0 if it has not changed; uses `vertex`,
   work.affine, work.x and work.step_product up. */
int finite_termination(const Program *program, Point *at, Workspace *work, Point *vertex)
{
    if (!classify(program, work) || !project(program, at, work, vertex) ||
        !is_optimal(program, work, vertex))
        return 0;
    for (long i = 0; i < program->sides; i++) { /* into the interval that rounding may leave */
        at->y[i] = larger(vertex->y[i], 0.0);
        if (i < program->elastic_sides && program->elastic[i] > 0)
            at->y[i] = smaller(at->y[i], program->penalty[i]);
    }
    memcpy(at->v, vertex->v, sizeof(double) * (size_t)program->stride);
    return 1;
}
