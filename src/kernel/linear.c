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

/* The same in single precision, twice as many lanes: for directions that need few digits. */
void add_rough_gram(const float *rows, long count, Square matrix)
{
    typedef float rough __attribute__((vector_size(8 * LANES), aligned(4)));
    for (long row = 0; row < matrix.size; row += TILE_COLUMNS)
        for (long column = row / (2 * LANES) * 2 * LANES; column < matrix.size; column += 2 * LANES) {
            rough sum[TILE_COLUMNS] = {0};
            const float *x = rows;
            for (long i = 0; i < count; i++, x += matrix.stride)
                for (int c = 0; c < TILE_COLUMNS; c++)
                    sum[c] += x[row + c] * *(const rough *)(x + column);
            for (int c = 0; c < TILE_COLUMNS; c++) {
                double *place = matrix.entry + (row + c) * matrix.stride + column;
                for (int lane = 0; lane < 2 * LANES; lane++)
                    place[lane] += (double)sum[c][lane];
            }
        }
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
    for (long first = 0; first < u.size; first += LANES) { /* U' y = x */
        vector sum[4] = {0};
        const double *column = u.entry + first;
        long i = 0;
        for (; i + 4 <= first; i += 4)
            for (int r = 0; r < 4; r++)
                sum[r] += x[i + r] * load(column + (i + r) * u.stride);
        for (; i < first; i++)
            sum[0] += x[i] * load(column + i * u.stride);
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
