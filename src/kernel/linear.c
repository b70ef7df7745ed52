/* Gram matrix, Cholesky factor and triangular solves, in tiles that stay in vector registers.

   The order of every sum is fixed by the shapes alone, so that a sample's bits do not depend on
   the other samples of its batch. */
#include "kernel.h"

/* out[r][c] += sign * sum_i x[i][row + r] x[i][column + c], c over whole registers. */
static inline __attribute__((always_inline)) void add_tile(const double *x, long stride, long count,
                                                           long row, long column, double *out,
                                                           long out_stride, double sign)
{
    vector sum[TILE_COLUMNS][TILE_REGISTERS] = {0};
    for (long i = 0; i < count; i++, x += stride) {
        vector part[TILE_REGISTERS];
        for (int r = 0; r < TILE_REGISTERS; r++)
            part[r] = load(x + column + r * LANES);
        for (int c = 0; c < TILE_COLUMNS; c++) {
            vector factor = spread(x[row + c]);
            for (int r = 0; r < TILE_REGISTERS; r++)
                sum[c][r] += factor * part[r];
        }
    }
    for (int c = 0; c < TILE_COLUMNS; c++)
        for (int r = 0; r < TILE_REGISTERS; r++) {
            double *place = out + c * out_stride + r * LANES;
            store(place, load(place) + sign * sum[c][r]);
        }
}

void add_gram(const double *rows, long count, Square matrix)
{
    for (long row = 0; row < matrix.size; row += TILE_COLUMNS)
        for (long column = row / TILE_ROWS * TILE_ROWS; column < matrix.size; column += TILE_ROWS)
            add_tile(rows, matrix.stride, count, row, column,
                     matrix.entry + row * matrix.stride + column, matrix.stride, 1.0);
}

/* The TILE_COLUMNS rows from `first` on, LANES entries from `column` on: row p becomes row p of U,
   where the diagonal tile is factored already. */
static inline void eliminate(Square u, long first, long column, const double *inverse_pivot)
{
    double *start = u.entry + first * u.stride;
    vector row[TILE_COLUMNS];
    for (int p = 0; p < TILE_COLUMNS; p++) {
        row[p] = load(start + p * u.stride + column);
        for (int t = 0; t < p; t++)
            row[p] -= start[t * u.stride + first + p] * row[t];
        row[p] *= inverse_pivot[first + p];
        store(start + p * u.stride + column, row[p]);
    }
}

double cholesky(Square u, long k, double least, double *inverse_pivot)
{
    double smallest = 1.0;
    for (long a = 0; a < u.size; a++)
        inverse_pivot[a] = u.entry[a * u.stride + a]; /* the diagonal, until its pivot is known */
    for (long first = 0; first < u.size; first += TILE_COLUMNS) {
        long left = first / TILE_ROWS * TILE_ROWS;
        for (long column = left; column < u.size; column += TILE_ROWS)
            add_tile(u.entry, u.stride, first, first, column, u.entry + first * u.stride + column,
                     u.stride, -1.0);
        for (long p = first; p < first + TILE_COLUMNS; p++) {
            double *row = u.entry + p * u.stride;
            for (long t = first; t < p; t++) {
                const double *above = u.entry + t * u.stride;
                for (long b = p; b < first + TILE_COLUMNS; b++)
                    row[b] -= above[p] * above[b];
            }
            double pivot = row[p], diagonal = inverse_pivot[p];
            int good = pivot > least * diagonal;
            inverse_pivot[p] = good ? 1.0 / sqrt(pivot) : 0.0;
            for (long b = p; b < first + TILE_COLUMNS; b++)
                row[b] *= inverse_pivot[p];
            if (p < k)
                smallest = smaller(smallest, good ? pivot / diagonal : 0.0);
        }
        for (long column = first + TILE_COLUMNS; column < u.size; column += LANES)
            eliminate(u, first, column, inverse_pivot);
    }
    return smallest;
}

void solve_factored(Square u, const double *inverse_pivot, double *x)
{
    for (long i = 0; i < u.size; i++) { /* U' y = x: each y is taken out of what follows it */
        const double *row = u.entry + i * u.stride;
        double value = x[i] *= inverse_pivot[i];
        for (long b = i + 1; b < u.size; b++)
            x[b] -= row[b] * value;
    }
    for (long i = u.size - 1; i >= 0; i--) {
        const double *row = u.entry + i * u.stride;
        double total = 0.0;
        for (long b = i + 1; b < u.size; b++)
            total += row[b] * x[b];
        x[i] = (x[i] - total) * inverse_pivot[i];
    }
}
