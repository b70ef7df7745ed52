/* The normal equations (G' D G) v = r of a layer program: products and Gram matrix. */
#include "program.h"

static const double NEGLIGIBLE = 0x1p-10;

void rows_times(const Rows *rows, const int32_t *index, long count, const double *v, double *image)
{
    long width = round_up(rows->k, LANES), stride = rows->stride;
    long j = 0;
    for (; rows->first && j < count; j++) {
        const double *entry = rows->table + index[j] * stride;
        double sum = 0;
        for (long i = rows->first[index[j]]; i < rows->first[index[j] + 1]; i++)
            sum += entry[rows->place[i]] * v[rows->place[i]];
        image[j] = sum;
    }
    for (; j + 4 <= count; j += 4) {
        const double *a = rows->table + index[j] * stride, *b = rows->table + index[j + 1] * stride;
        const double *c = rows->table + index[j + 2] * stride;
        const double *d = rows->table + index[j + 3] * stride;
        vector sum[4] = {0};
        for (long i = 0; i < width; i += LANES) {
            vector part = load(v + i);
            sum[0] += load(a + i) * part;
            sum[1] += load(b + i) * part;
            sum[2] += load(c + i) * part;
            sum[3] += load(d + i) * part;
        }
        for (int r = 0; r < 4; r++)
            image[j + r] = sum_of(sum[r]);
    }
    for (; j < count; j++) {
        const double *a = rows->table + index[j] * stride;
        vector sum = {0};
        for (long i = 0; i < width; i += LANES)
            sum += load(a + i) * load(v + i);
        image[j] = sum_of(sum);
    }
}

/* out = the listed rows' x for REGISTERS registers of columns; two sums each, for an addition takes
   longer than it takes to start another. */
static inline __attribute__((always_inline)) void
transposed_block(const double *table, long stride, const int32_t *index, long count,
                 const double *x, double *out, const int registers)
{
    vector even[4] = {0}, odd[4] = {0};
    long j = 0;
    for (; j + 2 <= count; j += 2) {
        const double *one = table + index[j] * stride, *two = table + index[j + 1] * stride;
        for (int r = 0; r < registers; r++) {
            even[r] += x[j] * load(one + r * LANES);
            odd[r] += x[j + 1] * load(two + r * LANES);
        }
    }
    for (int r = 0; r < registers; r++) {
        if (j < count)
            even[r] += x[j] * load(table + index[j] * stride + r * LANES);
        store(out + r * LANES, even[r] + odd[r]);
    }
}

void rows_transposed_times(const Rows *rows, const int32_t *index, long count, const double *x,
                           double *out)
{
    long width = round_up(rows->k, LANES), a = 0;
    if (rows->first) {
        fill(out, rows->stride, 0.0);
        for (long j = 0; j < count; j++) {
            const double *entry = rows->table + index[j] * rows->stride;
            for (long i = rows->first[index[j]]; i < rows->first[index[j] + 1]; i++)
                out[rows->place[i]] += x[j] * entry[rows->place[i]];
        }
        return;
    }
    for (; a + 4 * LANES <= width; a += 4 * LANES)
        transposed_block(rows->table + a, rows->stride, index, count, x, out + a, 4);
    if (a + 2 * LANES <= width) {
        transposed_block(rows->table + a, rows->stride, index, count, x, out + a, 2);
        a += 2 * LANES;
    }
    if (a < width)
        transposed_block(rows->table + a, rows->stride, index, count, x, out + a, 1);
    for (a = width; a < rows->stride; a++)
        out[a] = 0;
}

void times(const Rows *rows, const double *v, double *image, double *restrict out)
{
    long m = rows->m, k = rows->k;
    const double *restrict up = rows->upper_rate, *restrict low = rows->lower_rate;
    double slack = rows->shared ? v[k] : 0.0;
    rows_times(rows, rows->index, m, v, image);
    for (long j = 0; j < m; j++) {
        out[j] = image[j] - up[j] * slack;
        out[m + j] = -image[j] - low[j] * slack;
    }
    for (long a = 0; a < k; a++) {
        out[2 * m + a] = v[a];
        out[2 * m + k + a] = -v[a];
    }
    out[2 * m + 2 * k] = -slack;
    for (long i = 2 * m + 2 * k + 1; i < rows->sides; i++)
        out[i] = 0;
}

void transposed_times(const Rows *rows, const double *restrict x, double *restrict image,
                      double *restrict out)
{
    long m = rows->m, k = rows->k;
    for (long j = 0; j < m; j++)
        image[j] = x[j] - x[m + j];
    rows_transposed_times(rows, rows->index, m, image, out);
    for (long a = 0; a < k; a++)
        out[a] += x[2 * m + a] - x[2 * m + k + a];
    if (rows->shared) {
        double pull = 0;
        for (long j = 0; j < m; j++)
            pull += rows->upper_rate[j] * x[j] + rows->lower_rate[j] * x[m + j];
        out[k] = -pull - x[2 * m + 2 * k];
    }
}

double cutoff(const double *weight, long sides, long size)
{
    enum { BINS = 128 }; /* one an exponent, down from that of the largest */
    int32_t bin[BINS] = {0};
    int64_t top, bits;
    double peak = largest(weight, sides);
    memcpy(&top, &peak, sizeof top);
    top >>= 52;
    for (long i = 0; i < sides; i++) {
        memcpy(&bits, weight + i, sizeof bits);
        int64_t below = top - (bits >> 52);
        bin[below < BINS - 1 ? below : BINS - 1]++;
    }
    long seen = 0;
    for (int e = 0; e < BINS - 1; e++)
        if ((seen += bin[e]) >= size)
            return NEGLIGIBLE * ldexp(1.0, (int)(top - e) - 1023);
    return 0;
}

/* The Gram matrix of the kept rows from their listed entries: pairs within a row, nothing else. */
static void add_listed_gram(const Rows *rows, const double *weight, const Workspace *work,
                            long kept, Square matrix)
{
    long m = rows->m, k = rows->k, stride = matrix.stride;
    for (long i = 0; i < kept; i++) {
        long j = work->kept[i];
        const double *entry = rows->table + rows->index[j] * rows->stride;
        const int32_t *p = rows->place + rows->first[rows->index[j]];
        const int32_t *end = rows->place + rows->first[rows->index[j] + 1];
        double both = weight[j] + weight[m + j];
        double pull = rows->lower_rate[j] * weight[m + j] - rows->upper_rate[j] * weight[j];
        for (; p < end; p++) {
            double own = both * entry[*p], *row = matrix.entry + *p * stride;
            for (const int32_t *q = p; q < end; q++)
                row[*q] += own * entry[*q];
            if (rows->shared)
                row[k] += pull * entry[*p];
        }
    }
}

void normal_matrix(const Rows *rows, const double *weight, double least, int rough,
                   Workspace *work, Square matrix)
{
    /* Both sides of a row share one weight of the Gram matrix; the slack's column is a border:

           [ W' (D_u + D_l) W + D_high + D_low      W' (l D_l - u D_u)         ]
           [                                        u' D_u u + l' D_l l + D_d  ]           */
    long m = rows->m, k = rows->k, stride = matrix.stride, kept = 0;
    double *scale = work->image, *panel = work->panel;
    for (long j = 0; j < m; j++) {
        double both = weight[j] + weight[m + j];
        work->kept[kept] = (int32_t)j;
        scale[kept] = both;
        kept += both > least;
    }
    for (long i = 0; i < kept; i++)
        scale[i] = sqrt(scale[i]);
    for (long a = 0; a < matrix.size; a++)
        fill(matrix.entry + a * stride + a / TILE_ROWS * TILE_ROWS, stride - a / TILE_ROWS * TILE_ROWS, 0.0);
    if (rows->first) {
        add_listed_gram(rows, weight, work, kept, matrix);
        kept = 0;
    }
    for (long first = 0; first < kept; first += PANEL) {
        long count = kept - first < PANEL ? kept - first : PANEL;
        for (long i = 0; i < count; i++) {
            long j = work->kept[first + i];
            double s = scale[first + i], *restrict to = panel + i * stride, pull = 0;
            float *restrict to_rough = (float *)panel + i * stride;
            const double *restrict row = rows->table + rows->index[j] * rows->stride;
            if (rows->shared)
                pull = (rows->lower_rate[j] * weight[m + j] - rows->upper_rate[j] * weight[j]) / s;
            if (rough) {
                for (long a = 0; a < stride; a++)
                    to_rough[a] = (float)(s * row[a]);
                to_rough[k] = (float)pull;
            } else {
                for (long a = 0; a < stride; a++)
                    to[a] = s * row[a];
                to[k] = pull;
            }
        }
        if (rough)
            add_rough_gram((float *)panel, count, matrix);
        else
            add_gram(panel, count, matrix);
    }
    for (long a = 0; a < k; a++)
        matrix.entry[a * stride + a] += weight[2 * m + a] + weight[2 * m + k + a];
    for (long a = k; a < matrix.size; a++)
        matrix.entry[a * stride + a] = 1.0;
    if (rows->shared) {
        double corner = weight[2 * m + 2 * k];
        for (long j = 0; j < m; j++) {
            corner += rows->upper_rate[j] * rows->upper_rate[j] * weight[j];
            corner += rows->lower_rate[j] * rows->lower_rate[j] * weight[m + j];
        }
        matrix.entry[k * stride + k] = corner;
    }
}
