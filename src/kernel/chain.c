/* Chains of dense layers: least-squares losses, normal equations and damped steps of many runs.

   A ReLU network's Jacobian at z is a product of the active rows and columns of its weights,

       J = D_d W_d[R_d, R_{d-1}] ... D_2 W_2[R_2, R_1] D_1 W_1[R_1, :]

   with R_i the active rows of layer i, a small part of the weights: of 784 outputs of a digit
   decoder some 190. The rows of J that are missing are 0 and add nothing to J'J. */
#include "kernel.h"

enum { KINKED, TANH, SIGMOID };

/* All layers, one after the other, and what is fitted. Each weight is stored twice: row by row, and
   column by column, padded to whole registers of any variant. */
typedef struct {
    int64_t layers;
    const int64_t *sizes; /* latent size, then the outputs of each layer */
    const int64_t *kind;  /* of each layer */
    const double *rows, *columns;
    const double *bias;   /* of each unit */
    const double *slope;  /* of each unit, below its kink: 0 for a ReLU, 1 for an identity */
    const double *values; /* (samples, outputs) */
    const double *weight; /* of each error, 0 where nothing was observed; NULL for 1 */
} Chain;

/* The runs of one call, and what is wanted of them. Several runs may belong to one sample. */
typedef struct {
    int64_t count, threads;
    const Chain *chain;
    const int64_t *sample;
    const double *z;
    double *loss;
    const double *below;  /* only losses below this are linearised; NULL for all */
    const int64_t *place; /* where gram and slope have a run; NULL for the same order */
    double *gram, *slope; /* gram is NULL where the losses suffice */
} Runs;

/* Memory of one thread. */
typedef struct {
    double *a, *value, *derivative; /* of each unit */
    double *error;                  /* of each output */
    double *picked;                 /* entries of the listed units */
    double *product[2];             /* two steps of a Jacobian, by active units */
    int32_t *inputs, *outputs;      /* active units before and after a layer */
    long stride;
    Square gram; /* J with the error beside it, multiplied by itself */
} Scratch;

enum { PAD = 8 }; /* entries of the widest register: columns are padded to it, arrays have more */

static Scratch scratch_in(Arena *arena, const Chain *chain)
{
    long k = chain->sizes[0], units = 0, widest = k;
    for (long layer = 1; layer <= chain->layers; layer++) {
        units += chain->sizes[layer];
        widest = chain->sizes[layer] > widest ? chain->sizes[layer] : widest;
    }
    Scratch s = {.stride = row_stride(k + 1)};
    take_fields(arena, &s, offsetof(Scratch, product), units + k + PAD);
    take_fields(arena, s.product, sizeof s.product, (widest + PAD) * s.stride);
    s.inputs = take(arena, widest + PAD, sizeof(int32_t));
    s.outputs = take(arena, widest + PAD, sizeof(int32_t));
    s.gram = take_square(arena, k + 1, s.stride);
    s.gram.size = round_up(k + 1, TILE_COLUMNS);
    return s;
}

/* The indices and values of the n entries that are not 0; their number. One more is listed, the
   value 0 of the first entry: a multiple of 2 can be used. */
static long list_nonzero(const double *x, long n, int32_t *index, double *value)
{
    long count = 0;
    for (long i = 0; i < n; i++) {
        index[count] = (int32_t)i;
        value[count] = x[i];
        count += x[i] != 0.0;
    }
    index[count] = 0, value[count] = 0.0;
    return count;
}

/* Values and derivatives of n units; written so that large |a| keep their relative accuracy. */
static void activate(long kind, const double *slope, long n, const double *a, double *value,
                     double *derivative)
{
    for (long i = 0; kind == KINKED && i < n; i++) {
        value[i] = a[i] >= 0.0 ? a[i] : slope[i] * a[i];
        derivative[i] = a[i] > 0.0 ? 1.0 : slope[i];
    }
    for (long i = 0; kind != KINKED && i < n; i++) {
        double t = exp(-fabs(a[i]));
        if (kind == TANH) {
            value[i] = tanh(a[i]);
            derivative[i] = 4.0 * t * t / ((1.0 + t * t) * (1.0 + t * t));
        } else {
            value[i] = (a[i] >= 0.0 ? 1.0 : t) / (1.0 + t);
            derivative[i] = t / ((1.0 + t) * (1.0 + t));
        }
    }
}

/* Forward pass, error = weight (y - G(z)), derivatives of it; ||error||^2. */
static double evaluate(const Chain *chain, long sample, const double *z, Scratch s)
{
    const double *inputs = z, *columns = chain->columns;
    long first = 0;
    for (long layer = 0; layer < chain->layers; layer++) {
        long m = chain->sizes[layer], n = chain->sizes[layer + 1];
        long count = list_nonzero(inputs, m, s.inputs, s.picked), padded = round_up(n, PAD);
        fill(s.a + first + n, padded - n, 0.0);
        memcpy(s.a + first, chain->bias + first, (size_t)n * sizeof(double));
        add_rows(columns, padded, s.inputs, s.picked, round_up(count, 2), padded, s.a + first);
        activate(chain->kind[layer], chain->slope + first, n, s.a + first, s.value + first,
                 s.derivative + first);
        inputs = s.value + first;
        columns += m * padded;
        first += n;
    }
    long n = chain->sizes[chain->layers];
    first -= n;
    double total = 0.0;
    for (long j = 0; j < n; j++) {
        double weight = chain->weight ? chain->weight[sample * n + j] : 1.0;
        s.error[j] = weight * (chain->values[sample * n + j] - s.value[first + j]);
        s.derivative[first + j] *= weight;
        total += s.error[j] * s.error[j];
    }
    return total;
}

/* TILE_COLUMNS rows of a product: out[i] = sum_c w[i][picked[c]] product[c], some registers wide.
   The more of them, the fewer times each weight is read. */
enum { MOST_REGISTERS = 3 };
static inline __attribute__((always_inline)) void product_tile(
    const double *const *w, const int32_t *picked, long count, const double *product, long stride,
    int registers, double *out)
{
    vector sum[TILE_COLUMNS][MOST_REGISTERS] = {0};
    for (long c = 0; c < count; c++, product += stride) {
        vector part[MOST_REGISTERS];
        for (int r = 0; r < registers; r++)
            part[r] = load(product + r * LANES);
        for (int i = 0; i < TILE_COLUMNS; i++)
            for (int r = 0; r < registers; r++)
                sum[i][r] += spread(w[i][picked[c]]) * part[r];
    }
    for (int i = 0; i < TILE_COLUMNS; i++)
        for (int r = 0; r < registers; r++)
            store(out + i * stride + r * LANES, sum[i][r]);
}

/* `number` rows of a product, out[i] = sum_c weight[listed[i]][picked[c]] product[c]; all of
   `weight`'s rows have m entries. The last rows are worked on again to fill a tile. */
static void multiply_rows(const double *weight, long m, const int32_t *listed, long number,
                          const int32_t *picked, long count, const double *product, long stride,
                          long wide, double *out)
{
    for (long i = 0; i < number; i += TILE_COLUMNS) {
        const double *w[TILE_COLUMNS];
        for (int p = 0; p < TILE_COLUMNS; p++)
            w[p] = weight + listed[i + p < number ? i + p : number - 1] * m;
        long a = 0;
        for (; a + MOST_REGISTERS * LANES <= wide; a += MOST_REGISTERS * LANES)
            product_tile(w, picked, count, product + a, stride, MOST_REGISTERS,
                         out + i * stride + a);
        for (; a < wide; a += LANES)
            product_tile(w, picked, count, product + a, stride, 1, out + i * stride + a);
    }
}

/* The active rows of J into product[returned]; their indices into s.outputs, their number into
   *active. */
static int jacobian(const Chain *chain, Scratch s, long *active)
{
    long k = chain->sizes[0], wide = round_up(k, LANES), first = 0, count = 0;
    const double *rows = chain->rows;
    int from = 1;
    for (long layer = 0; layer < chain->layers; layer++, from = 1 - from) {
        long m = chain->sizes[layer], n = chain->sizes[layer + 1];
        double *out = s.product[1 - from];
        memcpy(s.inputs, s.outputs, (size_t)count * sizeof(int32_t));
        long number = list_nonzero(s.derivative + first, n, s.outputs, s.picked);
        for (long i = 0; !layer && i < number; i++)
            for (long b = 0; b < wide; b++)
                out[i * s.stride + b] = b < k ? rows[s.outputs[i] * k + b] : 0.0;
        if (layer)
            multiply_rows(rows, m, s.outputs, number, s.inputs, count, s.product[from], s.stride,
                          wide, out);
        for (long i = 0; i < number; i++)
            for (long a = 0; a < wide; a++)
                out[i * s.stride + a] *= s.picked[i];
        count = number;
        rows += m * n;
        first += n;
    }
    *active = count;
    return from;
}

static void linearize(const void *context, long run, Arena *arena)
{
    const Runs *runs = context;
    const Chain *chain = runs->chain;
    Scratch s = scratch_in(arena, chain);
    long k = chain->sizes[0], active;
    if (!arena->base)
        return;
    runs->loss[run] = 0.5 * evaluate(chain, runs->sample[run], runs->z + run * k, s);
    if (!runs->gram || (runs->below && !(runs->loss[run] < runs->below[run])))
        return;
    double *product = s.product[jacobian(chain, s, &active)];
    for (long i = 0; i < active; i++) { /* the error is column k: its products are the slope */
        fill(product + i * s.stride + k, s.stride - k, 0.0);
        product[i * s.stride + k] = s.error[s.outputs[i]];
    }
    fill(s.gram.entry, padded_size(k + 1) * s.stride, 0.0);
    add_gram(product, active, s.gram);
    long place = runs->place ? runs->place[run] : run;
    double *gram = runs->gram + place * k * k, *slope = runs->slope + place * k;
    for (long a = 0; a < k; a++) {
        const double *row = s.gram.entry + a * s.stride;
        slope[a] = row[k];
        for (long b = a; b < k; b++)
            gram[a * k + b] = gram[b * k + a] = row[b];
    }
}

/* Losses 0.5 ||y - G(z)||^2 of all runs; and unless `gram` is NULL, J'J and J'(y - G(z)) of those
   whose loss is lower than `below`, at their place. */
EXPORT int chain_linearize(const Runs *runs)
{
    return parallel_for(runs->count, runs->threads, linearize, runs);
}

typedef struct {
    int64_t count, threads, k;
    const int64_t *place; /* of a run's normal equations in `gram` and `slope` */
    const double *gram, *slope, *damping;
    const uint8_t *held;      /* (count, k) not 0 where a step stays 0; may be NULL */
    double *step, *predicted; /* (count, k); (count,) decreases of the loss that they promise */
} Steps;

/* (gram + damping diag(gram)) step = slope, scaled to a unit diagonal; 0 where that entry is 0. */
static void damped_step(const void *context, long run, Arena *arena)
{
    const Steps *steps = context;
    long k = steps->k, stride = row_stride(k);
    Square factor = take_square(arena, k, stride);
    double *scale = take_doubles(arena, stride), *pivot = take_doubles(arena, stride);
    double *x = take_doubles(arena, stride);
    if (!arena->base)
        return;
    long place = steps->place[run];
    const double *gram = steps->gram + place * k * k, *slope = steps->slope + place * k;
    double *step = steps->step + run * k, decrease = 0.0;
    fill(x, stride, 0.0);
    for (long a = 0; a < k; a++) {
        int free = gram[a * k + a] > 0.0 && !(steps->held && steps->held[run * k + a]);
        scale[a] = free ? 1.0 / sqrt(gram[a * k + a]) : 0.0;
        x[a] = free ? slope[a] * scale[a] : 0.0;
    }
    load_scaled(gram, k, scale, 1.0 + steps->damping[run], factor);
    cholesky(factor, k, 1e-15, pivot);
    solve_factored(factor, pivot, x);
    for (long a = 0; a < k; a++)
        step[a] = x[a] * scale[a];
    for (long a = 0; a < k; a++) {
        double bent = 0.0;
        for (long b = 0; b < k; b++)
            bent += gram[a * k + b] * step[b];
        decrease += (slope[a] - 0.5 * bent) * step[a];
    }
    steps->predicted[run] = decrease;
}

/* Damped steps of all runs. */
EXPORT int damped_steps(const Steps *steps)
{
    return parallel_for(steps->count, steps->threads, damped_step, steps);
}
