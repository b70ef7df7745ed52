/* Chains of dense layers: least-squares losses, normal equations and damped steps of many runs.

   A ReLU network's Jacobian at z is a product of the active rows and columns of its weights,

       J = D_d W_d[R_d, R_{d-1}] ... D_2 W_2[R_2, R_1] D_1 W_1[R_1, :]

   with R_i the active rows of layer i, a small part of the weights: of 784 outputs of a digit
   decoder some 190. The rows of J that are missing are 0 and add nothing to J'J. */
#include "kernel.h"

enum { KINKED, TANH, SIGMOID };

/* All layers, one after the other. Each weight is stored twice: row by row and column by column. */
typedef struct {
    int64_t layers;
    const int64_t *sizes; /* latent size, then the outputs of each layer */
    const int64_t *kind;  /* of each layer */
    const double *rows, *columns;
    const double *bias;  /* of each unit */
    const double *slope; /* of each unit, below its kink: 0 for a ReLU, 1 for an identity */
} Chain;

/* What is fitted. Each array has a row of outputs for each sample. */
typedef struct {
    const double *values;
    const double *weight; /* of each error, 0 where nothing was observed; NULL for 1 */
} Fit;

/* The runs of one call, and what is wanted of them. Several runs may belong to one sample. */
typedef struct {
    const Chain *chain;
    const Fit *fit;
    const int64_t *sample, *place; /* of each run; place is where gram and slope have it */
    const double *z, *below;       /* only losses below this are linearised; NULL for all */
    double *loss, *gram, *slope;   /* gram is NULL where the losses suffice */
} Runs;

/* Memory of one thread. */
typedef struct {
    double *a, *value, *derivative; /* of each unit */
    double *error;                  /* of each output */
    int64_t *inputs, *outputs;      /* active units before and after a layer */
    double *product[2];             /* two steps of a Jacobian, by active units */
    long stride;
    Square gram; /* J with the error beside it, multiplied by itself */
} Scratch;

static Scratch scratch_in(Arena *arena, const Chain *chain)
{
    long k = chain->sizes[0], units = 0, widest = 0;
    for (long layer = 0; layer <= chain->layers; layer++) {
        units += layer ? chain->sizes[layer] : 0;
        widest = chain->sizes[layer] > widest ? chain->sizes[layer] : widest;
    }
    Scratch s = {.stride = row_stride(k + 1)};
    s.a = take_doubles(arena, units);
    s.value = take_doubles(arena, units);
    s.derivative = take_doubles(arena, units);
    s.error = take_doubles(arena, chain->sizes[chain->layers]);
    s.inputs = take(arena, (size_t)(widest + 1) * sizeof(int64_t));
    s.outputs = take(arena, (size_t)(widest + TILE_COLUMNS) * sizeof(int64_t));
    for (int i = 0; i < 2; i++)
        s.product[i] = take_doubles(arena, (widest + TILE_COLUMNS) * s.stride);
    s.gram = (Square){take_doubles(arena, padded_size(k + 1) * s.stride),
                      round_up(k + 1, TILE_COLUMNS), s.stride};
    return s;
}

/* out += sum_i inputs[picked[i]] columns[picked[i]], each column of n entries. A part of `out` stays
   in registers while all columns are added to it. */
static void add_columns(const double *columns, const double *inputs, const int64_t *picked,
                        long count, double *out, long n)
{
    enum { PART = 8 };
    long j = 0;
    for (; j + PART * LANES <= n; j += PART * LANES) {
        vector sum[PART];
        for (int p = 0; p < PART; p++)
            sum[p] = load(out + j + p * LANES);
        for (long i = 0; i < count; i++) {
            const double *c = columns + picked[i] * n + j;
            vector x = spread(inputs[picked[i]]);
            for (int p = 0; p < PART; p++)
                sum[p] += x * load(c + p * LANES);
        }
        for (int p = 0; p < PART; p++)
            store(out + j + p * LANES, sum[p]);
    }
    for (long i = 0; i < count; i++) {
        const double x = inputs[picked[i]], *c = columns + picked[i] * n;
        for (long rest = j; rest < n; rest++)
            out[rest] += x * c[rest];
    }
}

/* The indices of the n entries that are not 0; their number. */
static long list_nonzero(const double *x, long n, int64_t *index)
{
    long count = 0;
    for (long i = 0; i < n; i++) {
        index[count] = i;
        count += x[i] != 0.0;
    }
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
static double evaluate(const Chain *chain, const Fit *fit, long sample, const double *z, Scratch s)
{
    const double *inputs = z, *columns = chain->columns;
    long first = 0;
    for (long layer = 0; layer < chain->layers; layer++) {
        long m = chain->sizes[layer], n = chain->sizes[layer + 1];
        long count = list_nonzero(inputs, m, s.inputs);
        memcpy(s.a + first, chain->bias + first, (size_t)n * sizeof(double));
        add_columns(columns, inputs, s.inputs, count, s.a + first, n);
        activate(chain->kind[layer], chain->slope + first, n, s.a + first, s.value + first,
                 s.derivative + first);
        inputs = s.value + first;
        columns += m * n;
        first += n;
    }
    long n = chain->sizes[chain->layers];
    first -= n;
    double total = 0.0, *value = s.value + first, *derivative = s.derivative + first;
    for (long j = 0; j < n; j++)
        s.error[j] = fit->values[sample * n + j] - value[j];
    for (long j = 0; fit->weight && j < n; j++) {
        s.error[j] *= fit->weight[sample * n + j];
        derivative[j] *= fit->weight[sample * n + j];
    }
    for (long j = 0; j < n; j++)
        total += s.error[j] * s.error[j];
    return total;
}

/* TILE_COLUMNS rows of a product: out[i] = sum_c w[i][picked[c]] product[c], some registers wide.
   The more of them, the fewer times each weight is read. */
enum { MOST_REGISTERS = 3 };
static inline __attribute__((always_inline)) void product_tile(
    const double *const *w, const int64_t *picked, long count, const double *product, long stride,
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
static void multiply_rows(const double *weight, long m, const int64_t *listed, long number,
                          const int64_t *picked, long count, const double *product, long stride,
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

static void scale_rows(double *rows, long stride, long wide, const int64_t *listed, long number,
                       const double *scale)
{
    for (long i = 0; i < number; i++)
        for (long a = 0; a < wide; a++)
            rows[i * stride + a] *= scale[listed[i]];
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
        memcpy(s.inputs, s.outputs, (size_t)count * sizeof(int64_t));
        long number = list_nonzero(s.derivative + first, n, s.outputs);
        for (long i = 0; !layer && i < number; i++)
            for (long b = 0; b < wide; b++)
                out[i * s.stride + b] = b < k ? rows[s.outputs[i] * k + b] : 0.0;
        if (layer)
            multiply_rows(rows, m, s.outputs, number, s.inputs, count, s.product[from], s.stride,
                          wide, out);
        scale_rows(out, s.stride, wide, s.outputs, number, s.derivative + first);
        count = number;
        rows += m * n;
        first += n;
    }
    *active = count;
    return from;
}

/* The error beside the active rows of J, as column k; 0 in the columns after it. */
static void append_error(Scratch s, double *product, long active, long k)
{
    for (long i = 0; i < active; i++) {
        double *row = product + i * s.stride;
        for (long a = k; a < s.stride; a++)
            row[a] = 0.0;
        row[k] = s.error[s.outputs[i]];
    }
}

static void linearize(void *context, long run, void *memory)
{
    const Runs *runs = context;
    const Chain *chain = runs->chain;
    long k = chain->sizes[0], active;
    Arena arena = {memory, 0};
    Scratch s = scratch_in(&arena, chain);
    runs->loss[run] = 0.5 * evaluate(chain, runs->fit, runs->sample[run], runs->z + run * k, s);
    if (!runs->gram || (runs->below && !(runs->loss[run] < runs->below[run])))
        return;
    double *product = s.product[jacobian(chain, s, &active)];
    append_error(s, product, active, k); /* its products with the others are the slope */
    memset(s.gram.entry, 0, (size_t)(padded_size(k + 1) * s.stride) * sizeof(double));
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

/* Losses 0.5 ||y - G(z)||^2 of `count` runs; and unless `gram` is NULL, J'J and J'(y - G(z)) of
   those whose loss is lower than `below`, at their place. `below` and `place` may be NULL.
   Returns 0, or -1 without memory. */
EXPORT int chain_linearize(const Chain *chain, const Fit *fit, int64_t count,
                           const int64_t *sample, const double *z, double *loss,
                           const double *below, const int64_t *place, double *gram,
                           double *slope, int threads)
{
    Runs runs = {chain, fit, sample, place, z, below, loss, gram, slope};
    Arena arena = {NULL, 0};
    scratch_in(&arena, chain);
    return parallel_for(count, threads, arena.used, linearize, &runs);
}

typedef struct {
    long k;
    const int64_t *place;
    const double *gram, *slope, *damping;
    const uint8_t *held;
    double *step, *predicted;
} Steps;

/* (gram + damping diag(gram)) step = slope, scaled to a unit diagonal. */
static void damped_step(void *context, long run, void *memory)
{
    const Steps *steps = context;
    long k = steps->k, size = padded_size(k), stride = row_stride(k);
    Arena arena = {memory, 0};
    Square factor = {take_doubles(&arena, size * stride), size, stride};
    double *scale = take_doubles(&arena, size), *pivot = take_doubles(&arena, size);
    double *x = take_doubles(&arena, size);
    long place = steps->place[run];
    const double *gram = steps->gram + place * k * k, *slope = steps->slope + place * k;
    double *step = steps->step + run * k, decrease = 0.0;
    for (long a = 0; a < size; a++) {
        int free = a < k && gram[a * k + a] > 0.0 && !(steps->held && steps->held[run * k + a]);
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

/* Damped steps of `count` runs, (count, k), and the decreases of the loss that they promise. The
   normal equations of a run are at its place of `gram` and `slope`. Where `held` is not 0, or a diagonal entry is 0, the entry of the step is 0; `held` may be NULL.
   Returns 0, or -1 without memory. */
EXPORT int damped_steps(int64_t count, int64_t k, const int64_t *place, const double *gram,
                        const double *slope, const double *damping, const uint8_t *held,
                        double *step, double *predicted, int threads)
{
    Steps steps = {k, place, gram, slope, damping, held, step, predicted};
    long size = padded_size(k);
    size_t bytes = (size_t)(size * row_stride(k) + 3 * size + 32) * sizeof(double);
    return parallel_for(count, threads, bytes, damped_step, &steps);
}
