/* One linear program in the form that the interior-point method takes; see interior.c. */
#ifndef PREIMAGE_PROGRAM_H
#define PREIMAGE_PROGRAM_H

#include "kernel.h"

enum { SHARED, OWN, NONE }; /* how a program's slack enters, as in LayerProgram */

/* What stands for infinity in the bounds that Python hands over. */
static const double INFINITE = 1e300;

/* What Python hands over, and gets back. Arrays are C-contiguous. A matrix is `table` (n + 1,
   stride), w_ja row_j column_a with row and column powers of two, 0 elsewhere. */
typedef struct {
    int64_t batch, n, k, stride;
    int64_t matrices; /* 1 for the whole batch, or one a sample */
    int64_t slack, threads;
    const double *table, *row, *column;
    const int32_t *first, *place; /* where each row's entries are, row by row; or NULL */
    const double *row_size, *column_size; /* |w_ja| <= row_size_j column_size_a; 0 if empty */
    const double *lower, *lower_rate, *upper, *upper_rate; /* (batch, n) */
    const double *low, *high, *objective;                  /* (batch, k) */
    double *z;                                             /* (batch, k) */
    double *dual_lower, *dual_upper;                       /* (batch, n) */
    int64_t *proven; /* (batch,) 1 where the multipliers prove that z is an optimum */
    int64_t *full;   /* (batch,) 1 where the rows with two sides have full column rank */
    int64_t *steps;  /* (batch,) */
} Batch;

/* Constraints G v <= h over v = (z, d), of which the last is the shared slack:

        [  W  -u ]   m upper sides       row i of W is table[index[i]], i < m, scaled; behind its
        [ -W  -l ]   m lower sides       k entries a row is 0, as is the row of padding.
    G = [  I     ]   z <= high
        [ -I     ]   z >= low
        [     -1 ]   d >= 0              then absent sides, up to a multiple of 8

   m is a multiple of 8. The first `elastic_sides` may be violated at a price: 2 m or 0. */
typedef struct {
    long m, k, shared, sides, elastic_sides, stride;
    const double *table;
    const int32_t *first, *place;    /* columns of a table row's entries; NULL if not worth listing */
    int32_t *index;                  /* (m,) */
    double *upper_rate, *lower_rate; /* (m,) u and l */
    double *equation;                /* (m,) 1 where a row has both sides, else 0 */
    double *bound;                   /* (sides,) h; 0 where a side is absent */
    double *present;                 /* (sides,) 1 where a side exists, else 0 */
    double *elastic;                 /* (sides,) 1 where it may be violated, else 0 */
    double *penalty;                 /* (sides,) price of a violation, else 0 */
    double *cost;                    /* (stride,) c, padded by 0 */
    double unit, price;              /* of the bounds and of the costs */
} Program;

/* A point, or a direction: v (stride,), and of each side the slack s, multiplier y, violation p,
   and t = penalty - y. Absent sides hold s = 1 and y = 0; others than elastic ones p = 0, t = 1. */
typedef struct {
    double *v, *s, *y, *p, *t;
} Point;

typedef struct {
    /* (sides,) */
    double *product, *step_product;            /* G v and G dv */
    double *weight;                            /* D */
    double *inverse_s, *inverse_y, *inverse_t; /* 1/s; 1/y and 1/t, 0 where y = 0 or not elastic */
    double *ratio_y, *ratio_t;                 /* dy/y and dt/t of the affine direction */
    double *push_s, *push_p;                   /* e/y + s and f/t + p */
    double *rho, *x, *best_y;
    double *kind, *face_weight; /* see termination.c */
    /* (stride,) */
    double *gradient, *affine, *constant, *pull, *inverse_pivot, *best_v;
    /* (m + 1,) */
    double *image, *scale, *border, *face_upper_rate, *face_lower_rate;
    int32_t *kept, *face_index;
    double *panel;
    Square matrix, gram;
} Workspace;

/* normal.c: products with W and with G; `image` (m,) is scratch. */
void rows_times(const Program *program, const double *v, double *image);
void rows_transposed_times(const Program *program, const double *x, double *out);
void times(const Program *program, const double *v, double *image, double *out);
void transposed_times(const Program *program, const double *x, double *image, double *out);

/* A power of two at most the `count`-th largest weight, and about as large; 0 for tiny ones. */
double large_weight(const double *weight, long sides, long count);

/* Upper triangle of G' diag(weight) G without the rows of weight up to `least`. */
void normal_matrix(const Program *program, const double *weight, double least, Workspace *work,
                   Square matrix);

/* standard_form.c: one sample (a batch of one) on `count` of its rows, and back. */
void standard_form(const Batch *sample, const int32_t *rows, long count, Program *program);
void restore(const Batch *sample, const Program *program, const Point *at, long count);

/* start.c: the least-squares point (returns 1 if its equations certainly determine it), and a point
   near at->v on the central path. */
int least_squares(const Program *program, Workspace *work, double *v);
double start_margin(const Program *program, int linear, const double *v, Workspace *work);
void centre(const Program *program, double margin, Workspace *work, Point *at);

/* interior.c, termination.c */
void set_weights(const Program *program, const Point *at, Workspace *work);
int minimise(const Program *program, Point *at, Point *step, Workspace *work, int64_t *steps);
int finite_termination(const Program *program, Point *at, Workspace *work, Point *vertex);

/* proof.c: whether sample.z is an optimum within `tolerance`; `every` lists all rows of it. */
int prove(const Batch *sample, const Program *program, int32_t *every, double tolerance,
          Workspace *work);

static inline double largest(const double *array, long count)
{
    double peak = 0;
    for (long i = 0; i < count; i++)
        peak = larger(peak, fabs(array[i]));
    return peak;
}

/* The power of two nearest to a positive finite value in the logarithm; 1 for 0. */
static inline double power_of_two(double value)
{
    int exponent;
    double part = frexp(value, &exponent);
    return value > 0 ? ldexp(1.0, part * part > 0.5 ? exponent : exponent - 1) : 1.0;
}

#endif
