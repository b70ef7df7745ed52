/* One linear program in the form that the interior-point method takes; see interior.c. */
#ifndef PREIMAGE_PROGRAM_H
#define PREIMAGE_PROGRAM_H

#include "kernel.h"

enum { SHARED, OWN, NONE }; /* how a program's slack enters, as in LayerProgram */
enum { VERTEX, CENTRAL, STUCK };

/* The matrix G of N = sides inequalities over v = (z, d), of which the last is the shared slack:

        [  W  -u ]   m upper sides       W is table[index[j]], j < m, scaled, by rows; behind its
        [ -W  -l ]   m lower sides       k entries a row is 0, as is the row of padding.
    G = [  I     ]   z <= high
        [ -I     ]   z >= low
        [     -1 ]   d >= 0              then absent sides, up to a multiple of 8

   m is a multiple of 8. The first `elastic` sides may be violated at a price: 2 m or 0. */
typedef struct {
    const double *table;
    const int32_t *first, *place; /* columns of a table row's entries; NULL if not worth listing */
    long stride;
    const int32_t *index;
    double *upper_rate, *lower_rate; /* (m,) u and l */
    long m, k, shared, sides, elastic;
} Rows;

/* The right-hand sides and costs. Each is (sides,) but the last two. */
typedef struct {
    double *bound;    /* h; 0 where a side is absent */
    double *present;  /* 1 where a side exists, else 0 */
    double *elastic;  /* 1 where it may be violated, else 0 */
    double *penalty;  /* price of a violation, else 0 */
    double *cost;     /* (stride,) c, padded by 0 */
    double *equation; /* (m,) 1 where a row has both sides, else 0 */
} Sides;

/* A point, or a direction: v (stride,), and of each side the slack s, multiplier y, violation p,
   and t = penalty - y. Absent sides hold s = 1 and y = 0; others than elastic ones p = 0, t = 1. */
typedef struct {
    double *v, *s, *y, *p, *t;
} Point;

enum { PANEL = 128 }; /* rows that enter a Gram matrix at a time */

typedef struct {
    double *product, *step_product; /* (sides,) G v and G dv */
    double *weight;                 /* D */
    double *inverse_s, *inverse_y, *inverse_t;
    double *ratio_y, *ratio_t; /* dy/y and dt/t of the affine direction */
    double *push_s, *push_p;   /* e/y + s and f/t + p */
    double *kind, *rho, *x;
    double *image;                              /* (m,) */
    double *gradient, *affine, *constant, *pull; /* (stride,) */
    double *inverse_pivot;
    double *panel; /* (PANEL, stride) */
    double *best_v, *best_y;
    int refinements; /* of each Newton step */
    Square matrix, gram;
    int32_t *kept;                                                  /* (m,) */
    int32_t *face_index;                                            /* (m,), see termination.c */
    double *face_sign, *face_rate, *face_y, *face_weight, *face_bound; /* (m + tail,) */
    double *face_product;
} Workspace;

/* Products with W, and with G; `image` (m,) is scratch. */
void rows_times(const Rows *rows, const int32_t *index, long count, const double *v, double *image);
void rows_transposed_times(const Rows *rows, const int32_t *index, long count, const double *x,
                           double *out);
void times(const Rows *rows, const double *v, double *image, double *out);
void transposed_times(const Rows *rows, const double *x, double *image, double *out);

/* A power of two below which a weight is negligible beside the K largest ones; times 2^-10. */
double cutoff(const double *weight, long sides, long size);

/* Upper triangle of G' diag(weight) G without the rows of weight up to `least`; if `rough`, the
   products are of single precision. */
void normal_matrix(const Rows *rows, const double *weight, double least, int rough,
                   Workspace *work, Square matrix);

void start(const Rows *rows, const Sides *sides, int linear, Workspace *work, Point *at);
void set_weights(const Rows *rows, const Sides *sides, const Point *at, Workspace *work);
int minimise(const Rows *rows, const Sides *sides, Point *at, Point *step, Point *other,
             Workspace *work, long *steps);
int finite_termination(const Rows *rows, const Sides *sides, Point *at, Workspace *work,
                       Point *spare);

static inline double largest(const double *array, long count)
{
    double peak = 0;
    for (long i = 0; i < count; i++)
        peak = larger(peak, fabs(array[i]));
    return peak;
}

static inline void fill(double *array, long count, double value)
{
    for (long i = 0; i < count; i++)
        array[i] = value;
}

/* The power of two nearest to a positive finite value in the logarithm; 1 for 0. */
static inline double power_of_two(double value)
{
    int exponent;
    double part = frexp(value, &exponent);
    return value > 0 ? ldexp(1.0, part * part > 0.5 ? exponent : exponent - 1) : 1.0;
}

#endif
