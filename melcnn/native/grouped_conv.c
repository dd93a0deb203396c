/* The grouped convolution of one dimension, with stride, padding and dilation, and its gradients. Arrays are contiguous:
   x (clips, groups * c_in, t), w (groups * c_out, c_in, taps), y and dy (clips, groups * c_out, t_out).

   Clips are computed in parts, of so many that a group's rows fill about half of a core's cache; parts and groups are shared by the threads.
   The gradients of weights are sums over slices of the parts, as many on every machine, so that what is computed does
   not depend on the number of threads. */
#include "rows.h"

#define JOIN(name, type) name##_##type
#define NAMED(name, type) JOIN(name, type)
#define FUNCTION(name) NAMED(name, REAL)

enum { ROWS = 1 << 14, SHORTEST_ROW = 512, LONGEST_ROW = 4096, MOST_SLICES = 16, MOST_TAPS = 64 };
static const long MOST_SUMS = 1 << 22; /* of all slices' gradients together */

typedef struct {
  long clips, groups, c_in, c_out, t, t_out, taps, stride, padding, dilation, threads;
} conv;

/* Rows of one group: `segment` elements for each of `at_once` clips; a channel of the input has a row for each phase of
   the stride, one behind the other. */
typedef struct {
  long segment, at_once, row, parts, input, offset[MOST_TAPS];
} layout;

static layout rows_of(const conv *s, long segment, long phases, long channels) {
  layout l = {.segment = segment};
  long row = ROWS / (s->c_in + s->c_out);
  row = row < SHORTEST_ROW ? SHORTEST_ROW : row > LONGEST_ROW ? LONGEST_ROW : row;
  l.at_once = row / segment < 1 ? 1 : row / segment > s->clips ? s->clips : row / segment;
  l.row = up_to(l.at_once * segment, LANES);
  l.parts = (s->clips + l.at_once - 1) / l.at_once;
  l.input = channels * phases * l.row;
  return l;
}

/* Forward, and for the gradient of the weights: element j of phase f is element j * stride + f of the padded input, and
   tap k of output j is element j * stride + k * dilation. */
static layout by_phase(const conv *s) {
  layout l = rows_of(s, (s->t + 2 * s->padding + s->stride - 1) / s->stride, s->stride, s->c_in);
  for (long k = 0; k < s->taps; k++)
    l.offset[k] = k * s->dilation % s->stride * l.row + k * s->dilation / s->stride;
  return l;
}

/* For the gradient of the input: the gradient of the output, `stride` apart and `margin` from the beginning, of which
   input i gets w[k] times element i + padding - k * dilation. */
static layout spread(const conv *s, long *margin) {
  long reach = (s->taps - 1) * s->dilation, last = (s->t_out - 1) * s->stride;
  *margin = reach > s->padding ? reach - s->padding : 0;
  long read = s->t + s->padding, filled = last + 1;
  layout l = rows_of(s, *margin + (read > filled ? read : filled), 1, s->c_out);
  for (long k = 0; k < s->taps; k++) l.offset[k] = s->padding + *margin - k * s->dilation;
  return l;
}

/* What a vector may read behind the last row. */
static long beyond(const conv *s, const layout *l) {
  long most = 0;
  for (long k = 0; k < s->taps; k++) most = l->offset[k] % l->row > most ? l->offset[k] % l->row : most;
  return most + LANES;
}

static long now_of(const conv *s, const layout *l, long part) {
  long left = s->clips - part * l->at_once;
  return left < l->at_once ? left : l->at_once;
}

/* The input of group g of a part, padded, by phase. to was zeroed: only data is written. */
static void pack_input(const conv *s, const layout *l, const REAL *x, long g, long part, REAL *to) {
  for (long n = 0; n < now_of(s, l, part); n++)
    for (long c = 0; c < s->c_in; c++) {
      const REAL *from = x + (((part * l->at_once + n) * s->groups + g) * s->c_in + c) * s->t;
      REAL *row = to + c * s->stride * l->row + n * l->segment;
      if (s->stride == 1) memcpy(row + s->padding, from, s->t * sizeof(REAL));
      else
        for (long f = 0; f < s->stride; f++) {
          long first = (s->padding - f + s->stride - 1) / s->stride;
          if (s->padding < f) first = 0;
          for (long j = first, i = j * s->stride + f - s->padding; i < s->t; j++, i += s->stride)
            row[f * l->row + j] = from[i];
        }
    }
}

/* The gradient of the output of group g of a part, each row beginning at `margin`, its elements `step` apart. */
static void pack_gradient(const conv *s, const layout *l, const REAL *dy, long g, long part, long margin, long step,
                          REAL *to) {
  for (long n = 0; n < now_of(s, l, part); n++)
    for (long o = 0; o < s->c_out; o++) {
      const REAL *from = dy + (((part * l->at_once + n) * s->groups + g) * s->c_out + o) * s->t_out;
      REAL *row = to + o * l->row + n * l->segment + margin;
      if (step == 1) memcpy(row, from, s->t_out * sizeof(REAL));
      else
        for (long j = 0; j < s->t_out; j++) row[j * step] = from[j];
    }
}

/* Convolves every part and group; pack fills `rows`, and `channels` rows of results of `t` elements go to y. Returns 0,
   or 1 without memory. */
static int convolve_all(const conv *s, const layout *l, int input, const REAL *from, long margin, const REAL *w,
                        const REAL *bias, long channels, long others, long t, REAL *y) {
  size_t room = l->input + beyond(s, l);
  int failed = 0;
#pragma omp parallel num_threads(s->threads)
  {
    REAL *in = reals(room), *out = reals(channels * l->row);
    if (!in || !out) failed = 1;
    else memset(in, 0, room * sizeof(REAL));
#pragma omp for collapse(2)
    for (long p = 0; p < l->parts; p++)
      for (long g = 0; g < s->groups; g++) {
        if (failed) continue;
        if (input) pack_input(s, l, from, g, p, in);
        else pack_gradient(s, l, from, g, p, margin, s->stride, in);
        rows rows = {.c_out = channels, .c_in = others, .taps = s->taps, .length = l->row, .offset = l->offset,
                     .x_row = (input ? s->stride : 1) * l->row, .w_row = others * s->taps, .out_row = l->row,
                     .bias = bias ? bias + g * channels : NULL};
        convolve(&rows, in, w + g * channels * others * s->taps, out);
        for (long n = 0; n < now_of(s, l, p); n++)
          for (long c = 0; c < channels; c++)
            memcpy(y + (((p * l->at_once + n) * s->groups + g) * channels + c) * t,
                   out + c * l->row + n * l->segment, t * sizeof(REAL));
      }
    free(in), free(out);
  }
  return failed;
}

/* bias may be NULL. */
int FUNCTION(conv_forward)(const conv *s, const REAL *x, const REAL *w, const REAL *bias, REAL *y) {
  layout l = by_phase(s);
  return convolve_all(s, &l, 1, x, 0, w, bias, s->c_out, s->c_in, s->t_out, y);
}

int FUNCTION(conv_input_gradient)(const conv *s, const REAL *dy, const REAL *w, REAL *dx) {
  long margin, weights = s->c_out * s->c_in * s->taps;
  layout l = spread(s, &margin);
  REAL *turned = malloc(s->groups * weights * sizeof(REAL)); /* in and out exchanged within groups */
  if (!turned) return 1;
  for (long g = 0; g < s->groups; g++)
    for (long o = 0; o < s->c_out; o++)
      for (long c = 0; c < s->c_in; c++)
        memcpy(turned + g * weights + (c * s->c_out + o) * s->taps, w + g * weights + (o * s->c_in + c) * s->taps,
               s->taps * sizeof(REAL));
  int failed = convolve_all(s, &l, 0, dy, margin, turned, NULL, s->c_in, s->c_out, s->t, dx);
  free(turned);
  return failed;
}

/* Gradients of weights, and of biases unless db is NULL. */
int FUNCTION(conv_weight_gradient)(const conv *s, const REAL *dy, const REAL *x, REAL *dw, REAL *db) {
  layout l = by_phase(s);
  long weights = s->c_out * s->c_in * s->taps, all = s->groups * weights;
  long slices = l.parts < MOST_SLICES ? l.parts : MOST_SLICES;
  if (slices * all > MOST_SUMS) slices = MOST_SUMS / all < 1 ? 1 : MOST_SUMS / all;
  size_t room = l.input + beyond(s, &l), size = weights + s->c_out;
  REAL *sums = calloc(slices * s->groups * size, sizeof(REAL));
  int failed = !sums;
#pragma omp parallel num_threads(s->threads)
  {
    REAL *in = reals(room), *dz = reals(s->c_out * l.row);
    if (!in || !dz) failed = 1;
    else memset(in, 0, room * sizeof(REAL)), memset(dz, 0, s->c_out * l.row * sizeof(REAL));
#pragma omp for collapse(2)
    for (long i = 0; i < slices; i++)
      for (long g = 0; g < s->groups; g++) {
        REAL *d_weight = sums + (i * s->groups + g) * size, *d_bias = d_weight + weights;
        for (long p = i * l.parts / slices; p < (i + 1) * l.parts / slices && !failed; p++) {
          if (now_of(s, &l, p) < l.at_once) { /* must not see the clips of the part before */
            memset(in, 0, room * sizeof(REAL));
            memset(dz, 0, s->c_out * l.row * sizeof(REAL));
          }
          pack_input(s, &l, x, g, p, in);
          pack_gradient(s, &l, dy, g, p, 0, 1, dz);
          rows rows = {.c_out = s->c_out, .c_in = s->c_in, .taps = s->taps, .length = l.row, .offset = l.offset,
                       .x_row = s->stride * l.row, .w_row = s->c_in * s->taps, .out_row = l.row};
          weight_gradient(&rows, dz, in, d_weight);
          for (long o = 0; db && o < s->c_out; o++) {
            REAL total = 0;
#pragma omp simd reduction(+ : total)
            for (long j = 0; j < l.row; j++) total += dz[o * l.row + j];
            d_bias[o] += total;
          }
        }
      }
    free(in), free(dz);
#pragma omp for
    for (long i = 0; i < (long)(s->groups * size); i++) {
      if (failed) continue;
      REAL total = 0;
      for (long k = 0; k < slices; k++) total += sums[k * s->groups * size + i];
      long g = i / size, j = i % size;
      if (j < weights) dw[g * weights + j] = total;
      else if (db) db[g * s->c_out + j - weights] = total;
    }
  }
  free(sums);
  return failed;
}
