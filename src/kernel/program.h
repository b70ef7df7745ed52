/* One linear program in the form that the interior-point method takes; see interior.c. */
#ifndef PREIMAGE_PROGRAM_H
#define PREIMAGE_PROGRAM_H

#include "kernel.h"

enum { SHARED, OWN, NONE }; /* how a program's slack enters, as in LayerProgram */

/* What stands for infinity in the bounds that Python hands over. */
static const double INFINITE = 1e300;

/* What Python hands over, and gets back. Arrays are C-contiguous. A matrix is `table` (n + 1,
   stride), w_ja row_j column_a with row and column powers of two, 0 elsewhere. Whatever has two
   sides has them one after the other: w_j z <= bound_0j and -w_j z <= bound_1j. */
typedef struct {
    int64_t batch, n, k, stride;
    int64_t matrices; /* 1 for the whole batch, or one a sample */
    int64_t slack, threads;
    const double *table;
    const int32_t *first, *place;         /* where each row's entries are, row by row; or NULL */
    const double *row, *column;           /* (matrices, n) and (matrices, k) */
    const double *row_size, *column_size; /* |w_ja| <= row_size_j column_size_a; 0 if empty */
    const double *bound, *rate;           /* (batch, 2, n) */
    const double *box, *objective;        /* (batch, 2, k), z <= box_0, -z <= box_1; (batch, k) */
    double *z, *multiplier;               /* (batch, k) and (batch, 2, n) */
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

   m is a multiple of 8. The first `elastic_sides` may be violated at a price: 2 m or 0. A pair is
   s and y of a side or, behind all of these, p and t of an elastic one; see interior.c. */
typedef struct {
    long m, k, stride, sides, elastic_sides, pairs;
    long size, shared; /* entries of v: k + shared */
    const double *table;
    const int32_t *first, *place; /* columns of a table row's entries; NULL if not worth listing */
    int32_t *index;               /* (m,) */
    double *elastic;              /* (elastic_sides,) where `present` tells of their p and t */
    double unit, price;           /* of the bounds and of the costs */
    /* Arrays, one after the other, as `lay_out` in solve.c and `clear` take them. */
    double *present;  /* (pairs,) 1 where a pair exists, else 0 */
    double *equation; /* (m,) 1 where a row has both sides, else 0 */
    double *bound;    /* (sides,) h; 0 where a side is absent */
    double *rate;     /* (sides,) u, l, 0 and 1: minus the last column of G; 0 without d */
    double *penalty;  /* (sides,) price of a violation, else 0 */
    double *cost;     /* (size,) c */
} Program;

/* A point, or a direction: v (stride,), and of each pair s or p, and y or t. Absent pairs hold
   s = 1 and y = 0, or p = 0 and t = 1. */
typedef struct {
    double *v, *s, *y;
} Point;

typedef struct {
    /* (pairs,) */
    double *inverse_s, *inverse_y; /* 1/s and 1/p; 1/y and 1/t, 0 where the pair is absent */
    double *ratio;                 /* dy/y and dt/t of the affine direction */
    double *push;                  /* e/y + s and f/t + p */
    /* (sides,) */
    double *product, *step_product;                           /* G v and G dv */
    double *weight;                                           /* D */
    double *rho, *x;
    double *kind, *face_weight, *face_rate, *face_bound, *face_y; /* see termination.c */
    /* (stride,) */
    double *gradient, *affine, *constant, *pull, *inverse_pivot;
    /* (m,) */
    double *image, *scale, *border;
    double *panel;
    int32_t *kept, *face_index, *every, *picked; /* (m + 1,) lists of rows */
    Square matrix, gram;
} Workspace;

/* The sides of m rows; and m, for `count` rows: `index` is filled up with the row of padding. */
static inline long sides_of(long m, long k) { return round_up(2 * m + 2 * k + 1, 8); }
static inline long pad_rows(int32_t *index, long count, long padding)
{
    long m = round_up(count, 8);
    for (long i = count; i < m; i++)
        index[i] = (int32_t)padding;
    return m;
}

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
void minimise(const Program *program, Point *at, Point *step, Workspace *work, int64_t *steps);
int finite_termination(const Program *program, Point *at, Workspace *work, Point *vertex);

/* proof.c: whether sample.z is an optimum within `tolerance`. */
int prove(const Batch *sample, const Program *program, double tolerance, Workspace *work);

static inline double largest(const double *array, long count)
{
    double peak = 0;
    for (long i = 0; i < count; i++)
        peak = larger(peak, fabs(array[i]));
    return peak;
}

/* Of a bound; 0 for one that is not there. */
static inline double finite_size(double bound)
{
    return fabs(bound) < INFINITE ? fabs(bound) : 0.0;
}

/* The power of two nearest to a positive finite value in the logarithm; 1 for 0. */
static inline double power_of_two(double value)
{
    int exponent;
    double part = frexp(value, &exponent);
    return value > 0 ? ldexp(1.0, part * part > 0.5 ? exponent : exponent - 1) : 1.0;
}

#endif
