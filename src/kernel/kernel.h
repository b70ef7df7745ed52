/* What all parts of the kernel share: vectors, memory, threads, dense linear algebra.

   The same source is compiled once for each instruction set. All flags that let sums be reordered
   are on, and -ffinite-math-only too: infinity and NaN are told apart by `is_finite`, which looks
   at the bits, never by isnan, isinf or a comparison with INFINITY. */
#ifndef PREIMAGE_KERNEL_H
#define PREIMAGE_KERNEL_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

/* Each function that Python calls takes one structure, whose fields are whole numbers of 64 bits
   and pointers, and returns 0, or -1 without memory. This is the version of these functions, of the
   order of the fields, and of how arrays are laid out. Raise it here and in preimage/engine.py with
   every change of these: a library of another version is not used. */
enum { INTERFACE = 2 };

/* Entries of a vector register, and the shape of a tile of a Gram matrix: TILE_ROWS registers of
   rows by TILE_COLUMNS columns stay in registers while it is summed up. */
#if defined(__AVX512F__)
enum { LANES = 8, TILE_REGISTERS = 1, TILE_COLUMNS = 8 };
#elif defined(__AVX2__)
enum { LANES = 4, TILE_REGISTERS = 2, TILE_COLUMNS = 4 };
#else
enum { LANES = 2, TILE_REGISTERS = 2, TILE_COLUMNS = 4 };
#endif
enum { TILE_ROWS = LANES * TILE_REGISTERS };

typedef double vector __attribute__((vector_size(8 * LANES), aligned(8)));

static inline vector load(const double *from) { return *(const vector *)from; }
static inline void store(double *to, vector value) { *(vector *)to = value; }
static inline vector spread(double value) { return value - (vector){0}; }

static inline double sum_of(vector value)
{
    double total = 0;
    for (int lane = 0; lane < LANES; lane++)
        total += value[lane];
    return total;
}

static inline void fill(double *array, long count, double value)
{
    for (long i = 0; i < count; i++)
        array[i] = value;
}

static inline int is_finite(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits >> 52 & 2047) != 2047;
}

static inline double larger(double a, double b) { return a > b ? a : b; }
static inline double smaller(double a, double b) { return a < b ? a : b; }
static inline long round_up(long n, long multiple) { return (n + multiple - 1) / multiple * multiple; }

/* The memory of one thread, handed out piece by piece. Each piece starts at a cache line and is not
   cleared. With base 0 what is asked for is only counted. */
typedef struct {
    char *base;
    size_t used;
} Arena;

static inline void *take(Arena *arena, long count, size_t size)
{
    void *place = arena->base ? arena->base + arena->used : NULL;
    arena->used += ((size_t)count * size + 63) / 64 * 64;
    return place;
}

static inline double *take_doubles(Arena *arena, long count)
{
    return take(arena, count, sizeof(double));
}

/* Point each of the `double *` that fill the first `bytes` of a structure to `count` doubles. */
static inline void take_fields(Arena *arena, void *structure, size_t bytes, long count)
{
    double **field = structure;
    for (size_t i = 0; i < bytes / sizeof *field; i++)
        field[i] = take_doubles(arena, count);
}

/* Call `work(context, i, arena)` for i from 0 to count - 1 on up to `threads` threads. `work` first
   takes all its memory, and returns at once if that is only counted. Returns 0, or -1 without
   memory. */
typedef void Work(const void *context, long index, Arena *arena);
int parallel_for(long count, long threads, Work *work, const void *context);

/* A square matrix of the normal equations: `size` rows of `stride` entries, of which the upper
   triangle counts. The size is padded to whole tiles with an identity. */
typedef struct {
    double *entry;
    long size, stride;
} Square;

/* The padded size of a matrix of order k, and the length of its rows. The latter holds an odd
   number of cache lines: rows that are a power of two apart would share few places in the cache. */
static inline long padded_size(long k) { return round_up(k, TILE_ROWS); }
static inline long tile_start(long a) { return a / TILE_ROWS * TILE_ROWS; }
static inline long row_stride(long k) /* the same for all variants: Python lays out by it */
{
    long lines = round_up(k, 16) / 8;
    return 8 * (lines | 1);
}

/* Room for a matrix of order k. */
static inline Square take_square(Arena *arena, long k, long stride)
{
    long size = padded_size(k);
    return (Square){take_doubles(arena, size * stride), size, stride};
}

/* Add `rows' rows` to the upper triangle; `rows` is count x stride, the same stride, padded by 0.
   PANEL rows at a time stay in the cache. */
enum { PANEL = 128 };
void add_gram(const double *rows, long count, Square matrix);

/* out += sum_i x[i] rows[index[i]], i < count, an even number, for `width` entries of rows with the
   given stride. Whole registers are read and written. */
void add_rows(const double *rows, long stride, const int32_t *index, const double *x, long count,
              long width, double *out);

/* The same for scale[i] table[index[i]], i < count, with border[i] in column k unless `border` is
   NULL; `panel` (PANEL, stride) is scratch. */
void add_scaled_gram(const double *table, const int32_t *index, const double *scale,
                     const double *border, long k, long count, double *panel, Square matrix);

/* matrix = diag(scale) gram diag(scale) for gram (k, k), padded; its diagonal becomes `diagonal`. */
void load_scaled(const double *gram, long k, const double *scale, double diagonal, Square matrix);

/* Factor `matrix = U' U` in place. A pivot below `least` times its diagonal entry depends on those
   before: it gets the inverse pivot 0, so that its variable stays where it is. Returns the
   smallest pivot relative to its diagonal entry (of the first k), 0 if one was dropped. */
double cholesky(Square matrix, long k, double least, double *inverse_pivot);

/* inverse <- U'^-1, which is lower triangular; of the same size and stride, all of it written. */
void invert_factor(Square factor, const double *inverse_pivot, Square inverse);

/* x <- (U' U)^-1 x for the padded vector x. */
void solve_factored(Square factor, const double *inverse_pivot, double *x);

#endif
