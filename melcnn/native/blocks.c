/* Blocks of the network in training: grouped convolution (3 taps, padding 1), ReLU, BatchNorm by batch statistics and
   pooling, forward and backward, in as few passes over memory as the statistics allow.

   Arrays are float32 and contiguous: x (clips, groups * c_in, t), w (groups * c_out, c_in, 3), y and dy (clips,
   groups * c_out, t / 2, or 1 after mean pooling). `a` is the activation after ReLU, (clips, groups * c_out, padded(t)),
   zero beyond t. `groups` are those of all replicas together; replicas are computed one after another, so that what one
   needs stays in the cache, and the clips of one by all threads. Sums are added up in one order, however many threads.

   With an index (clips, replicas) the input is picked from a data set: x is then (data set, groups / replicas * c_in, t),
   and replica r of clip n reads its clip index[n][r]. */
#include "lanes.h"
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

enum { TAPS = 3, MAX_POOL = 0, MEAN_POOL = 1 };

static float *floats(long count) { return aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64); }

/* So many clips' gradients are summed in registers before they are added to memory. */
enum { CLIPS_AT_ONCE = 8 };

long padded(long t) { return (t + LANES - 1) / LANES * LANES; }

/* A row with a zero before it, and zeros behind it as far as a tile reads. */
static long row_length(long t) { return padded(t) + LANES; }

static void pad_row(float *to, const float *from, long t) {
  to[0] = 0;
  memcpy(to + 1, from, t * sizeof(float));
  memset(to + 1 + t, 0, (row_length(t) - 1 - t) * sizeof(float));
}

INLINE void tile(int rows, int vectors, long c_in, const float *x, long x_row, const float *w, long w_row, float *out,
                 long out_row) {
  vec sums[TILE_ROWS][TILE_VECTORS];
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < vectors; v++) sums[r][v] = (vec){0};
  for (long c = 0; c < c_in; c++)
    for (int k = 0; k < TAPS; k++) {
      vec in[TILE_VECTORS];
      for (int v = 0; v < vectors; v++) {
        in[v] = load(x + c * x_row + k + v * LANES);
        IN_REGISTER(in[v]);
      }
      for (int r = 0; r < rows; r++) {
        vec weight = splat(w[r * w_row + c * TAPS + k]);
        for (int v = 0; v < vectors; v++) sums[r][v] += weight * in[v];
      }
    }
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < vectors; v++) store(out + r * out_row + v * LANES, sums[r][v]);
}

#define TILE(rows, vectors) \
  case rows * 8 + vectors: tile(rows, vectors, c_in, in, x_row, weights, w_row, to, out_row); break;
#if TILE_VECTORS == 4
#define TILES(rows) TILE(rows, 1) TILE(rows, 2) TILE(rows, 3) TILE(rows, 4)
#else
#define TILES(rows) TILE(rows, 1) TILE(rows, 2)
#endif

/* The convolution of padded rows: out[o][t] = sum over c, k of w[o][c][k] x[c][t + k], without bias. */
static void convolve(long c_out, long c_in, long t, const float *x, long x_row, const float *w, float *out,
                     long out_row) {
  long all = padded(t) / LANES, w_row = c_in * TAPS;
  for (long v = 0; v < all; v += TILE_VECTORS) {
    int vectors = all - v < TILE_VECTORS ? all - v : TILE_VECTORS;
    for (long o = 0, rows; o < c_out; o += rows) {
      rows = c_out - o >= 4 ? 4 : c_out - o >= 2 ? 2 : 1;
      const float *in = x + v * LANES, *weights = w + o * w_row;
      float *to = out + o * out_row + v * LANES;
      switch (rows * 8 + vectors) { TILES(1) TILES(2) TILES(4) }
    }
  }
}

INLINE void gradient_tile(int rows, int columns, long clips, long vectors, const float *dz, long dz_clip, long dz_row,
                          const float *x, long x_clip, long x_row, float *dw, long w_row) {
  vec sums[GRADIENT_ROWS][GRADIENT_COLUMNS][TAPS];
  for (int r = 0; r < rows; r++)
    for (int c = 0; c < columns; c++)
      for (int k = 0; k < TAPS; k++) sums[r][c][k] = (vec){0};
  for (long n = 0; n < clips; n++)
    for (long v = 0; v < vectors; v++) {
      vec out[GRADIENT_ROWS];
      for (int r = 0; r < rows; r++) {
        out[r] = load(dz + n * dz_clip + r * dz_row + v * LANES);
        IN_REGISTER(out[r]);
      }
      for (int c = 0; c < columns; c++)
        for (int k = 0; k < TAPS; k++) {
          vec in = load(x + n * x_clip + c * x_row + k + v * LANES);
          IN_REGISTER(in);
          for (int r = 0; r < rows; r++) sums[r][c][k] += out[r] * in;
        }
    }
  for (int r = 0; r < rows; r++)
    for (int c = 0; c < columns; c++)
      for (int k = 0; k < TAPS; k++) dw[r * w_row + c * TAPS + k] += sum(sums[r][c][k]);
}

#define GRADIENT(rows, columns)                                                                                        \
  if (r == rows && columns_now == columns)                                                                             \
    gradient_tile(rows, columns, clips, padded(t) / LANES, dz + o * dz_row, dz_clip, dz_row, x + c * x_row, x_clip,    \
                  x_row, dw + o * w_row + c * TAPS, w_row);

/* dw[o][c][k] += sum over clips and t of dz[o][t] x[c][t + k], x padded rows, dz zero beyond t. */
static void weight_gradient(long clips, long c_out, long c_in, long t, const float *dz, long dz_clip, long dz_row,
                            const float *x, long x_clip, long x_row, float *dw) {
  long w_row = c_in * TAPS;
  for (long o = 0, r; o < c_out; o += r) {
    r = c_out - o >= GRADIENT_ROWS ? GRADIENT_ROWS : c_out - o >= 2 ? 2 : 1;
    for (long c = 0, columns_now; c < c_in; c += columns_now) {
      columns_now = c_in - c >= GRADIENT_COLUMNS ? GRADIENT_COLUMNS : 1;
      GRADIENT(1, 1)
      GRADIENT(2, 1)
#if GRADIENT_COLUMNS == 2
      GRADIENT(1, 2)
      GRADIENT(2, 2)
      GRADIENT(4, 2)
#endif
#if GRADIENT_ROWS == 4
      GRADIENT(4, 1)
#endif
    }
  }
}

/* What a pooled value of a channel is taken from: the larger of two, or the smaller if its scale turns the order. */
INLINE float chosen(float one, float two, float scale) {
  return scale < 0 ? (one <= two ? one : two) : (one >= two ? one : two);
}

/* One block, as the arguments of the functions below give it. */
typedef struct {
  long clips, groups, replicas, c_in, c_out, t, x_row, a_row, t_out;
  const int64_t *index;
} shape;

static shape shape_of(const int64_t *index, long replicas, long clips, long groups, long c_in, long c_out, long t,
                      int pool) {
  return (shape){clips, groups, replicas, c_in, c_out, t, row_length(t), padded(t), pool == MEAN_POOL ? 1 : t / 2, index};
}

/* The first channel of group g of clip n. */
static const float *channels_of(shape s, const float *x, long n, long g) {
  long own = s.groups / s.replicas;
  if (!s.index) return x + (n * s.groups + g) * s.c_in * s.t;
  return x + (s.index[n * s.replicas + g / own] * own + g % own) * s.c_in * s.t;
}

/* Convolution and ReLU of one group of one clip; by channel the mean of the activation, and the sum of the squared
   distances from it (sums of squares themselves would lose a small variance beside a large mean). */
static void activate(shape s, const float *in, const float *w, const float *bias, float *rows, float *a,
                     double *moments) {
  for (long c = 0; c < s.c_in; c++) pad_row(rows + c * s.x_row, in + c * s.t, s.t);
  convolve(s.c_out, s.c_in, s.t, rows, s.x_row, w, a, s.a_row);
  for (long o = 0; o < s.c_out; o++) {
    float *row = a + o * s.a_row, b = bias[o], total = 0, squares = 0;
#pragma omp simd reduction(+ : total)
    for (long i = 0; i < s.t; i++) {
      float z = row[i] + b;
      z = z < 0 ? 0 : z; /* so that what is no number stays none */
      row[i] = z;
      total += z;
    }
    float mean = total / s.t;
#pragma omp simd reduction(+ : squares)
    for (long i = 0; i < s.t; i++) squares += (row[i] - mean) * (row[i] - mean);
    for (long i = s.t; i < s.a_row; i++) row[i] = 0;
    moments[2 * o] = mean;
    moments[2 * o + 1] = squares;
  }
}

static void pool_row(shape s, const float *row, float scale, float shift, int pool, float *to) {
  if (pool == MEAN_POOL) {
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (long i = 0; i < s.t; i++) total += row[i];
    to[0] = total / s.t * scale + shift;
  } else {
    for (long i = 0; i < s.t_out; i++) to[i] = chosen(row[2 * i], row[2 * i + 1], scale) * scale + shift;
  }
}

/* Returns 0, or 1 if there is no memory. training: the batch's statistics are used, and written to mean and variance
   (biased); else those that stand there are used. */
int block_forward(const float *x, const int64_t *index, long replicas, const float *w, const float *bias,
                  const float *gamma, const float *beta, float eps, long clips, long groups, long c_in, long c_out,
                  long t, int pool, int training, int threads, float *a, float *y, float *mean, float *variance) {
  shape s = shape_of(index, replicas, clips, groups, c_in, c_out, t, pool);
  long own = groups / replicas, channels = groups * c_out, own_channels = own * c_out;
  double *moments = malloc(clips * own_channels * 2 * sizeof(double));
  int failed = !moments;
  for (long r = 0; r < replicas && !failed; r++) {
    long first = r * own_channels;
#pragma omp parallel num_threads(threads)
    {
      float *rows = floats(c_in * s.x_row);
      if (!rows) failed = 1;
#pragma omp for
      for (long n = 0; n < clips; n++)
        for (long g = r * own; g < (r + 1) * own && rows; g++)
          activate(s, channels_of(s, x, n, g), w + g * c_out * c_in * TAPS, bias + g * c_out, rows,
                   a + (n * channels + g * c_out) * s.a_row, moments + 2 * (n * own_channels + g * c_out - first));
      free(rows);
#pragma omp for
      for (long c = 0; c < own_channels; c++) {
        if (!training) continue;
        double m = 0, within = 0, between = 0;
        for (long n = 0; n < clips; n++) {
          m += moments[2 * (n * own_channels + c)] / clips;
          within += moments[2 * (n * own_channels + c) + 1];
        }
        for (long n = 0; n < clips; n++) {
          double distance = moments[2 * (n * own_channels + c)] - m;
          between += distance * distance;
        }
        mean[first + c] = m;
        variance[first + c] = within / ((double)clips * t) + between / clips;
      }
#pragma omp for
      for (long n = 0; n < clips; n++)
        for (long c = first; c < first + own_channels; c++) {
          float scale = gamma[c] / sqrtf(variance[c] + eps), shift = beta[c] - mean[c] * scale;
          pool_row(s, a + (n * channels + c) * s.a_row, scale, shift, pool, y + (n * channels + c) * s.t_out);
        }
    }
  }
  free(moments);
  return failed;
}

/* The sum over the batch of dy, and of dy times what it was taken from less the mean. */
static void norm_sums(shape s, const float *dy, const float *a, long channel, float m, float scale, int pool,
                      double *total, double *product) {
  *total = *product = 0;
  for (long n = 0; n < s.clips; n++) {
    const float *row = a + (n * s.groups * s.c_out + channel) * s.a_row;
    const float *from = dy + (n * s.groups * s.c_out + channel) * s.t_out;
    float sum_of = 0, with = 0;
    if (pool == MEAN_POOL) {
#pragma omp simd reduction(+ : with)
      for (long i = 0; i < s.t; i++) with += row[i];
      sum_of = from[0];
      with = sum_of * (with / s.t - m);
    } else {
#pragma omp simd reduction(+ : sum_of, with)
      for (long i = 0; i < s.t_out; i++) {
        sum_of += from[i];
        with += from[i] * (chosen(row[2 * i], row[2 * i + 1], scale) - m);
      }
    }
    *total += sum_of;
    *product += with;
  }
}

/* The gradient before the ReLU of one channel of one clip, as a padded row; returns its sum. The gradient after
   pooling goes to where the pooled value was taken from; BatchNorm takes its mean and its share along the activation. */
static float unpool_row(shape s, const float *dy, const float *row, float m, float scale, float level, float slope,
                        int pool, float *padded_row) {
  float *to = padded_row + 1, total = 0;
  if (pool == MEAN_POOL) {
    float each = dy[0] / s.t;
    for (long i = 0; i < s.t; i++) to[i] = each;
  } else {
    for (long i = 0; i < s.t_out; i++) {
      int one = chosen(row[2 * i], row[2 * i + 1], scale) == row[2 * i]; /* of equals the first */
      to[2 * i] = one ? dy[i] : 0;
      to[2 * i + 1] = one ? 0 : dy[i];
    }
    if (s.t % 2) to[s.t - 1] = 0;
  }
#pragma omp simd reduction(+ : total)
  for (long i = 0; i < s.t; i++) {
    float d = row[i] > 0 ? scale * (to[i] - level - (row[i] - m) * slope) : 0;
    to[i] = d;
    total += d;
  }
  padded_row[0] = 0;
  memset(to + s.t, 0, (s.x_row - 1 - s.t) * sizeof(float));
  return total;
}

/* The weights of one group as the gradient of its input needs them: in and out exchanged, taps turned round. */
static void turn(shape s, const float *w, float *turned) {
  for (long o = 0; o < s.c_out; o++)
    for (long c = 0; c < s.c_in; c++)
      for (int k = 0; k < TAPS; k++) turned[(c * s.c_out + o) * TAPS + k] = w[(o * s.c_in + c) * TAPS + TAPS - 1 - k];
}

/* The gradients of a block in training; dx may be NULL. Returns 0, or 1 if there is no memory. */
int block_backward(const float *dy, const float *x, const int64_t *index, long replicas, const float *a, const float *w,
                   const float *gamma, const float *mean, const float *variance, float eps, long clips, long groups,
                   long c_in, long c_out, long t, int pool, int threads, float *dx, float *dw, float *db, float *dgamma,
                   float *dbeta) {
  shape s = shape_of(index, replicas, clips, groups, c_in, c_out, t, pool);
  long own = groups / replicas, channels = groups * c_out, own_channels = own * c_out;
  long weights = c_out * c_in * TAPS, x_clip = c_in * s.x_row, dz_clip = c_out * s.x_row;
  long parts = (clips + CLIPS_AT_ONCE - 1) / CLIPS_AT_ONCE, part_size = own * weights + own_channels;
  /* For each part of the clips, its gradients of weights and biases. */
  float *sums = malloc(parts * part_size * sizeof(float)), *turned = malloc(groups * weights * sizeof(float));
  int failed = !sums || !turned;
  for (long g = 0; g < groups && !failed; g++) turn(s, w + g * weights, turned + g * weights);
  for (long r = 0; r < replicas && !failed; r++) {
#pragma omp parallel num_threads(threads)
    {
      float *in = floats(CLIPS_AT_ONCE * x_clip), *dz = floats(CLIPS_AT_ONCE * dz_clip), *out = floats(c_in * s.a_row);
      if (!in || !dz || !out) failed = 1;
#pragma omp for
      for (long c = r * own_channels; c < (r + 1) * own_channels; c++) {
        double total, product, deviation = sqrt((double)variance[c] + eps);
        norm_sums(s, dy, a, c, mean[c], gamma[c] / sqrtf(variance[c] + eps), pool, &total, &product);
        dbeta[c] = total;
        dgamma[c] = product / deviation;
      }
#pragma omp for
      for (long part = 0; part < parts; part++) {
        if (failed) continue;
        long start = part * CLIPS_AT_ONCE, now = clips - start < CLIPS_AT_ONCE ? clips - start : CLIPS_AT_ONCE;
        float *part_dw = sums + part * part_size, *part_db = part_dw + own * weights;
        memset(part_dw, 0, part_size * sizeof(float));
        for (long g = r * own; g < (r + 1) * own; g++) {
          for (long n = 0; n < now; n++) {
            const float *from = channels_of(s, x, start + n, g);
            for (long c = 0; c < c_in; c++) pad_row(in + n * x_clip + c * s.x_row, from + c * t, t);
            for (long o = 0; o < c_out; o++) {
              long c = g * c_out + o, at = (start + n) * channels + c;
              float inverse = 1 / sqrtf(variance[c] + eps), count = (float)clips * t;
              part_db[c - r * own_channels] +=
                  unpool_row(s, dy + at * s.t_out, a + at * s.a_row, mean[c], gamma[c] * inverse, dbeta[c] / count,
                             dgamma[c] * inverse / count, pool, dz + n * dz_clip + o * s.x_row);
            }
            if (dx) {
              convolve(c_in, c_out, t, dz + n * dz_clip, s.x_row, turned + g * weights, out, s.a_row);
              for (long c = 0; c < c_in; c++)
                memcpy(dx + (((start + n) * groups + g) * c_in + c) * t, out + c * s.a_row, t * sizeof(float));
            }
          }
          weight_gradient(now, c_out, c_in, t, dz + 1, dz_clip, s.x_row, in, x_clip, s.x_row,
                          part_dw + (g - r * own) * weights);
        }
      }
      free(in), free(dz), free(out);
#pragma omp for
      for (long i = 0; i < part_size; i++) {
        float total = 0;
        for (long part = 0; part < parts; part++) total += sums[part * part_size + i];
        if (i < own * weights) dw[r * own * weights + i] = total;
        else db[r * own_channels + i - own * weights] = total;
      }
    }
  }
  free(sums), free(turned);
  return failed;
}
