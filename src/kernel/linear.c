/* Gram matrix, Cholesky factor and triangular solves, in tiles that stay in vector registers.

   The order of every sum is fixed by the shapes alone, so that a sample's bits do not depend on
   the other samples of its batch. */
#include "kernel.h"

/* out[r][c] += sign * sum_i x[i][r] y[i][c], c over whole registers, rows of one stride. */
static inline __attribute__((always_inline)) void add_tile(const double *x, const double *y,
                                                           long stride, long count, double *out,
                                                           double sign)
{
    vector sum[TILE_COLUMNS][TILE_REGISTERS] = {0};
    for (long i = 0; i < count; i++, x += stride, y += stride) {
        vector part[TILE_REGISTERS];
        for (int c = 0; c < TILE_REGISTERS; c++)
            part[c] = load(y + c * LANES);
        for (int r = 0; r < TILE_COLUMNS; r++) {
            vector factor = spread(x[r]);
            for (int c = 0; c < TILE_REGISTERS; c++)
                sum[r][c] += factor * part[c];
        }
    }
    for (int r = 0; r < TILE_COLUMNS; r++)
        for (int c = 0; c < TILE_REGISTERS; c++) {
            double *place = out + r * stride + c * LANES;
            store(place, load(place) + sign * sum[r][c]);
        }
}

void add_gram(const double *rows, long count, Square matrix)
{
    for (long first = 0; first < count; first += PANEL, rows += PANEL * matrix.stride) {
        long some = count - first < PANEL ? count - first : PANEL;
        for (long row = 0; row < matrix.size; row += TILE_COLUMNS)
            for (long column = tile_start(row); column < matrix.size; column += TILE_ROWS)
                add_tile(rows + row, rows + column, matrix.stride, some,
                         matrix.entry + row * matrix.stride + column, 1.0);
    }
}

void add_scaled_gram(const double *table, const int32_t *index, const double *scale,
                     const double *border, long k, long count, double *panel, Square matrix)
{
    for (long first = 0; first < count; first += PANEL) {
        long rows = count - first < PANEL ? count - first : PANEL;
        for (long i = 0; i < rows; i++) {
            const double *restrict row = table + index[first + i] * matrix.stride;
            double *restrict scaled = panel + i * matrix.stride, factor = scale[first + i];
            for (long a = 0; a < matrix.size; a++)
                scaled[a] = factor * row[a];
            if (border)
                scaled[k] = border[first + i];
        }
        add_gram(panel, rows, matrix);
    }
}

/* Some registers of add_rows; two sums each, for an addition takes longer than it takes to start
   another. */
static inline __attribute__((always_inline)) void
add_block(const double *rows, long stride, const int32_t *index, const double *x, long count,
          const int registers, double *out)
{
    vector even[4] = {0}, odd[4] = {0};
    for (long i = 0; i < count; i += 2) {
        const double *one = rows + index[i] * stride, *two = rows + index[i + 1] * stride;
        for (int r = 0; r < registers; r++) {
            even[r] += x[i] * load(one + r * LANES);
            odd[r] += x[i + 1] * load(two + r * LANES);
        }
    }
    for (int r = 0; r < registers; r++)
        store(out + r * LANES, load(out + r * LANES) + even[r] + odd[r]);
}

void add_rows(const double *rows, long stride, const int32_t *index, const double *x, long count,
              long width, double *out)
{
    long a = 0;
    for (; a + 4 * LANES <= width; a += 4 * LANES)
        add_block(rows + a, stride, index, x, count, 4, out + a);
    for (; a < width; a += LANES)
        add_block(rows + a, stride, index, x, count, 1, out + a);
}

/* The TILE_COLUMNS rows from `first` on of the right-hand side `rows`, LANES columns: row p becomes
   row p of U'^-1 times it, where the rows before are done and the diagonal tile is factored. */
static inline void eliminate(Square u, long first, double *rows, const double *inverse_pivot)
{
    const double *tile = u.entry + first * (u.stride + 1);
    vector row[TILE_COLUMNS];
    for (int p = 0; p < TILE_COLUMNS; p++) {
        row[p] = load(rows + p * u.stride);
        for (int t = 0; t < p; t++)
            row[p] -= tile[t * u.stride + p] * row[t];
        row[p] *= inverse_pivot[first + p];
        store(rows + p * u.stride, row[p]);
    }
}

/* The diagonal tile from `first` on; what is below its diagonal stays junk. `inverse_pivot` holds
   the diagonal entries before, and the inverse pivots after. Returns the smallest pivot. */
static inline double factor_tile(Square u, long first, long k, double least, double *inverse_pivot)
{
    enum { PARTS = TILE_COLUMNS / LANES };
    vector row[TILE_COLUMNS][PARTS];
    double *start = u.entry + first * (u.stride + 1), smallest = 1.0;
    for (int p = 0; p < TILE_COLUMNS; p++)
        for (int part = 0; part < PARTS; part++)
            row[p][part] = load(start + p * u.stride + part * LANES);
#pragma GCC unroll 8
    for (int p = 0; p < TILE_COLUMNS; p++) {
        double pivot = row[p][p / LANES][p % LANES], diagonal = inverse_pivot[first + p];
        int good = pivot > least * diagonal;
        double inverse = good ? 1.0 / sqrt(pivot) : 0.0;
        inverse_pivot[first + p] = inverse;
        if (first + p < k)
            smallest = smaller(smallest, good ? pivot / diagonal : 0.0);
        for (int part = 0; part < PARTS; part++) {
            row[p][part] *= inverse;
            store(start + p * u.stride + part * LANES, row[p][part]);
        }
#pragma GCC unroll 8
        for (int r = p + 1; r < TILE_COLUMNS; r++)
            for (int part = 0; part < PARTS; part++)
                row[r][part] -= row[p][r / LANES][r % LANES] * row[p][part];
    }
    return smallest;
}

double cholesky(Square u, long k, double least, double *inverse_pivot)
{
    double smallest = 1.0;
    for (long a = 0; a < u.size; a++)
        inverse_pivot[a] = u.entry[a * u.stride + a]; /* the diagonal, until its pivot is known */
    for (long first = 0; first < u.size; first += TILE_COLUMNS) {
        double *rows = u.entry + first * u.stride;
        for (long column = tile_start(first); column < u.size; column += TILE_ROWS)
            add_tile(u.entry + first, u.entry + column, u.stride, first, rows + column, -1.0);
        smallest = smaller(smallest, factor_tile(u, first, k, least, inverse_pivot));
        for (long column = first + TILE_COLUMNS; column < u.size; column += LANES)
            eliminate(u, first, rows + column, inverse_pivot);
    }
    return smallest;
}

void invert_factor(Square u, const double *inverse_pivot, Square inverse)
{
    memset(inverse.entry, 0, sizeof(double) * (size_t)(u.size * u.stride));
    for (long a = 0; a < u.size; a++)
        inverse.entry[a * (u.stride + 1)] = 1.0;
    for (long first = 0; first < u.size; first += TILE_COLUMNS) {
        double *rows = inverse.entry + first * u.stride;
        for (long column = 0; column <= first; column += TILE_ROWS) /* rows before it hold 0 there */
            add_tile(u.entry + column * u.stride + first, inverse.entry + column * (u.stride + 1),
                     u.stride, first - column, rows + column, -1.0);
        for (long column = 0; column < first + TILE_COLUMNS; column += LANES)
            eliminate(u, first, rows + column, inverse_pivot);
    }
}

void load_scaled(const double *gram, long k, const double *scale, double diagonal, Square matrix)
{
    for (long a = 0; a < matrix.size; a++) {
        double *row = matrix.entry + a * matrix.stride;
        for (long b = 0; b < matrix.size; b++)
            row[b] = a < k && b < k ? gram[a * k + b] * scale[a] * scale[b] : 0.0;
        row[a] = diagonal;
    }
}

void solve_factored(Square u, const double *inverse_pivot, double *x)
{
    for (long first = 0; first < u.size; first += LANES) { /* U' y = x */
        vector sum[4] = {0};
        const double *column = u.entry + first;
        for (long i = 0; i < first; i += LANES)
            for (int r = 0; r < LANES; r++)
                sum[r % 4] += x[i + r] * load(column + (i + r) * u.stride);
        vector left = load(x + first) - ((sum[0] + sum[1]) + (sum[2] + sum[3]));
        for (int p = 0; p < LANES; p++) { /* lanes before p hold junk, and are known already */
            double value = left[p] * inverse_pivot[first + p];
            left -= value * load(column + (first + p) * u.stride);
            x[first + p] = value;
        }
    }
    for (long first = u.size - LANES; first >= 0; first -= LANES) {
        vector sum[LANES] = {0};
        double left[LANES];
        for (long b = first + LANES; b < u.size; b += LANES)
            for (int r = 0; r < LANES; r++)
                sum[r] += load(u.entry + (first + r) * u.stride + b) * load(x + b);
        for (int r = 0; r < LANES; r++)
            left[r] = x[first + r] - sum_of(sum[r]);
        for (int p = LANES - 1; p >= 0; p--) {
            x[first + p] = left[p] *= inverse_pivot[first + p];
            for (int r = 0; r < p; r++)
                left[r] -= u.entry[(first + r) * u.stride + first + p] * left[p];
        }
    }
}
