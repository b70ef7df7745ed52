/* The normal equations (G' D G) v = r of a layer program: products and Gram matrix. */
#include "program.h"

void rows_times(const Program *program, const double *v, double *image)
{
    long width = round_up(program->k, LANES), stride = program->stride;
    const int32_t *index = program->index, *place = program->place;
    for (long j = 0; program->first && j < program->m; j++) {
        const double *entry = program->table + index[j] * stride;
        double sum = 0;
        for (long i = program->first[index[j]]; i < program->first[index[j] + 1]; i++)
            sum += entry[place[i]] * v[place[i]];
        image[j] = sum;
    }
    for (long j = 0; !program->first && j < program->m; j += 4) {
        const double *row[4];
        vector sum[4] = {0};
        for (int r = 0; r < 4; r++)
            row[r] = program->table + index[j + r] * stride;
        for (long a = 0; a < width; a += LANES)
            for (int r = 0; r < 4; r++)
                sum[r] += load(row[r] + a) * load(v + a);
        for (int r = 0; r < 4; r++)
            image[j + r] = sum_of(sum[r]);
    }
}

void rows_transposed_times(const Program *program, const double *x, double *out)
{
    const int32_t *index = program->index, *place = program->place;
    fill(out, program->stride, 0.0);
    if (!program->first)
        add_rows(program->table, program->stride, index, x, program->m, program->k, out);
    for (long j = 0; program->first && j < program->m; j++) {
        const double *entry = program->table + index[j] * program->stride;
        for (long i = program->first[index[j]]; i < program->first[index[j] + 1]; i++)
            out[place[i]] += x[j] * entry[place[i]];
    }
}

void times(const Program *program, const double *v, double *image, double *restrict out)
{
    long m = program->m, k = program->k, boxed = 2 * m + 2 * k;
    const double *restrict rate = program->rate;
    rows_times(program, v, image);
    for (long j = 0; j < m; j++) {
        out[j] = image[j];
        out[m + j] = -image[j];
    }
    for (long a = 0; a < k; a++) {
        out[2 * m + a] = v[a];
        out[2 * m + k + a] = -v[a];
    }
    fill(out + boxed, program->sides - boxed, 0.0);
    for (long i = 0; program->shared && i < program->sides; i++)
        out[i] -= rate[i] * v[k];
}

void transposed_times(const Program *program, const double *restrict x, double *restrict image,
                      double *restrict out)
{
    long m = program->m, k = program->k;
    for (long j = 0; j < m; j++)
        image[j] = x[j] - x[m + j];
    rows_transposed_times(program, image, out);
    for (long a = 0; a < k; a++)
        out[a] += x[2 * m + a] - x[2 * m + k + a];
    double paid = 0;
    for (long i = 0; program->shared && i < program->sides; i++)
        paid += program->rate[i] * x[i];
    out[k] = -paid;
}

double large_weight(const double *weight, long sides, long count)
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
        if ((seen += bin[e]) >= count)
            return ldexp(1.0, (int)(top - e) - 1023);
    return 0;
}

/* The Gram matrix of rows from their listed entries: pairs within a row, nothing else. */
static void add_listed_gram(const Program *program, const int32_t *index, const double *weight,
                            const double *border, long count, Square matrix)
{
    for (long i = 0; i < count; i++) {
        const double *entry = program->table + index[i] * program->stride;
        const int32_t *end = program->place + program->first[index[i] + 1];
        for (const int32_t *p = program->place + program->first[index[i]]; p < end; p++) {
            double own = weight[i] * entry[*p], *row = matrix.entry + *p * matrix.stride;
            for (const int32_t *q = p; q < end; q++)
                row[*q] += own * entry[*q];
            row[program->k] += border[i] * entry[*p];
        }
    }
}

/* Both sides of a row share one weight of the Gram matrix; the slack's column is a border:

       [ W' (D_u + D_l) W + D_high + D_low      W' (l D_l - u D_u)         ]
       [                                        u' D_u u + l' D_l l + D_d  ]                     */
void normal_matrix(const Program *program, const double *weight, double least, Workspace *work,
                   Square matrix)
{
    long m = program->m, k = program->k, kept = 0;
    const double *rate = program->rate;
    for (long j = 0; j < m; j++) {
        double both = weight[j] + weight[m + j];
        double border = rate[m + j] * weight[m + j] - rate[j] * weight[j];
        work->kept[kept] = program->index[j];
        work->scale[kept] = both;
        work->border[kept] = program->shared ? border : 0.0;
        kept += both > least;
    }
    for (long a = 0; a < matrix.size; a++) /* whole tiles */
        fill(matrix.entry + a * matrix.stride + tile_start(a), matrix.size - tile_start(a), 0.0);
    if (program->first) {
        add_listed_gram(program, work->kept, work->scale, work->border, kept, matrix);
    } else {
        for (long i = 0; i < kept; i++) {
            work->scale[i] = sqrt(work->scale[i]);
            work->border[i] /= work->scale[i];
        }
        add_scaled_gram(program->table, work->kept, work->scale, work->border, k, kept,
                        work->panel, matrix);
    }
    for (long a = 0; a < k; a++)
        matrix.entry[a * (matrix.stride + 1)] += weight[2 * m + a] + weight[2 * m + k + a];
    for (long a = k; a < matrix.size; a++)
        matrix.entry[a * (matrix.stride + 1)] = 1.0;
    if (program->shared) {
        double corner = 0;
        for (long i = 0; i < program->sides; i++)
            corner += rate[i] * rate[i] * weight[i];
        matrix.entry[k * (matrix.stride + 1)] = corner;
    }
}
