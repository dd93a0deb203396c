/* The convolutional part of the network: blocks of grouped convolution (3 taps, padding 1), ReLU, BatchNorm and pooling
   (by the larger of two, at last by the mean over time), of several replicas side by side; forward and backward, in as
   few passes over memory as the statistics allow.

   Replicas are computed one after another, so that what one needs stays in the cache, and its clips in parts of CLIPS by
   all threads. What is computed does not depend on the number of threads: sums are added up in one order. */
#include "trunk.h"
#include <math.h>

long trunk_workspace(const trunk *s) {
  layer layers[MOST_BLOCKS];
  return lay_out(s, layers, parts_of(s));
}

/* One mel of one clip as a training step sees it, `melcnn.augmentation.VIEW` numbers: moved by `view[0]` frames, its first
   or last value filling up, and zero in two spans of frames and in two of mels. */
enum { VIEW = 9 };
INLINE void augment(const int32_t *view, long mel, long t, const float *from, float *row) {
  if ((view[5] <= mel && mel < view[6]) || (view[7] <= mel && mel < view[8])) {
    memset(row, 0, t * sizeof(float));
    return;
  }
  long shift = view[0], first = shift > 0 ? shift : 0, last = shift < 0 ? t + shift : t;
  for (long i = 0; i < first; i++) row[i] = from[0];
  memcpy(row + first, from + first - shift, (last - first) * sizeof(float));
  for (long i = last; i < t; i++) row[i] = from[t - 1];
  for (int m = 1; m < 5; m += 2) memset(row + view[m], 0, (view[m + 1] - view[m]) * sizeof(float));
}

/* The rows of one replica's clips. With an index (clips, replicas) they are picked from a data set, x (data set, n_mels,
   frames), and seen as `views` (clips, replicas, VIEW) say; without, x is (clips, replicas * n_mels, frames). */
static void gather(const trunk *s, const layer *now, const float *x, const int64_t *index, const int32_t *views, long r,
                   long part, float *to) {
  long count = clips_of(s, part), t = now->t, rest = now->segment - t;
  memset(to - GUARD, 0, GUARD * sizeof(float));
  memset(to + s->n_mels * now->row, 0, GUARD * sizeof(float));
  for (long n = 0; n < count; n++) {
    long clip = part * CLIPS + n;
    const float *from = x + (index ? index[clip * s->replicas + r] : clip * s->replicas + r) * s->n_mels * t;
    for (long c = 0; c < s->n_mels; c++) {
      float *row = to + place_of_mel(s, c) * now->row + n * now->segment;
      if (views) augment(views + (clip * s->replicas + r) * VIEW, c, t, from + c * t, row);
      else memcpy(row, from + c * t, t * sizeof(float));
      for (long i = 0; i < rest; i++) row[t + i] = 0;
    }
  }
  if (now->row > count * now->segment)
    for (long c = 0; c < s->n_mels; c++)
      memset(to + c * now->row + count * now->segment, 0, (now->row - count * now->segment) * sizeof(float));
}

/* Convolution and ReLU of all groups of a part. */
static void activate(const trunk *s, const layer *now, const block *b, long r, long part, const float *x, float *a) {
  for (long g = 0; g < s->groups; g++) {
    long first = r * s->channels + g * now->c_out;
    rows rows = {.c_out = now->c_out, .c_in = now->c_in, .taps = TAPS, .length = now->row, .offset = OFFSETS,
                 .x_row = now->row, .w_row = now->c_in * TAPS, .out_row = now->row, .bias = b->bias + first,
                 .mask = mask_of(s, now, part), .relu = 1};
    convolve(&rows, x + g * now->c_in * now->row, b->weight + first * now->c_in * TAPS,
             a + g * now->c_out * now->row);
  }
}

/* The mean of one channel of a part, and the sum of the squared distances from it: sums of squares themselves would lose
   a small variance beside a large mean. */
static void moments_of(const layer *now, const int32_t *mask, long count, const float *row, double *moments) {
  float total = 0, squares = 0;
#pragma omp simd reduction(+ : total)
  for (long i = 0; i < now->row; i++) total += row[i];
  float mean = total / (count * now->t);
#pragma omp simd reduction(+ : squares)
  for (long i = 0; i < now->row; i++) squares += mask[i] ? (row[i] - mean) * (row[i] - mean) : 0;
  moments[0] = mean;
  moments[1] = squares;
}

static int in_range(const trunk *s, const int64_t *index, const int32_t *views) {
  for (long i = 0; index && i < s->clips * s->replicas; i++)
    if (index[i] < 0 || index[i] >= s->data_set) return 0;
  for (const int32_t *view = views; view && view < views + s->clips * s->replicas * VIEW; view += VIEW) {
    if (view[0] <= -s->frames || view[0] >= s->frames) return 0;
    for (int m = 1; m < 5; m += 2)
      if (view[m] < 0 || view[m + 1] < view[m] || view[m + 1] > s->frames) return 0;
  }
  return 1;
}

/* A channel's mean and biased variance over all parts; the running ones take the unbiased variance, as torch's do. */
static void merge(const trunk *s, const layer *now, const block *b, const double *moments, long stride, long channel) {
  double all = (double)s->clips * now->t, m = 0, squares = 0;
  for (long p = 0; p < parts_of(s); p++) m += moments[p * stride] * (clips_of(s, p) * now->t / all);
  for (long p = 0; p < parts_of(s); p++) {
    double distance = moments[p * stride] - m;
    squares += moments[p * stride + 1] + distance * distance * clips_of(s, p) * now->t;
  }
  b->mean[channel] = m;
  b->variance[channel] = squares / all;
  b->running_mean[channel] += b->momentum * ((float)m - b->running_mean[channel]);
  float unbiased = squares / (all > 1 ? all - 1 : 1);
  b->running_variance[channel] += b->momentum * (unbiased - b->running_variance[channel]);
}

/* What a pooled value is taken from: the larger of two, or the smaller if the scale that follows turns the order. */
INLINE float chosen(float one, float two, int smaller) {
  return smaller ? (one <= two ? one : two) : (one >= two ? one : two);
}

INLINE void pool_pairs(const float *a, long length, int smaller, float scale, float shift, const int32_t *mask,
                       float *to) {
  for (long i = 0; i < length; i++) {
    float pooled = chosen(a[2 * i], a[2 * i + 1], smaller) * scale + shift;
    to[i] = mask[i] ? pooled : 0;
  }
}

/* BatchNorm and pooling of a part: to the rows of the next block's input, or to y (clips, replicas * channels). */
static void pool(const trunk *s, const layer *now, const block *b, long r, long part, int last, const float *a,
                 float *next, float *y) {
  if (!last) {
    memset(next - GUARD, 0, GUARD * sizeof(float));
    memset(next + s->channels * now[1].row, 0, GUARD * sizeof(float));
  }
  for (long c = 0; c < s->channels; c++) {
    long channel = r * s->channels + c;
    const float *row = a + c * now->row;
    float scale = b->gamma[channel] / sqrtf(b->variance[channel] + s->eps);
    float shift = b->beta[channel] - b->mean[channel] * scale;
    if (!last) {
      const int32_t *mask = mask_of(s, now + 1, part);
      float *to = next + place_of_channel(s, c) * now[1].row;
      if (scale < 0) pool_pairs(row, now[1].row, 1, scale, shift, mask, to);
      else pool_pairs(row, now[1].row, 0, scale, shift, mask, to);
    } else
      for (long n = 0; n < clips_of(s, part); n++) {
        float total = 0;
#pragma omp simd reduction(+ : total)
        for (long i = 0; i < now->t; i++) total += row[n * now->segment + i];
        y[(part * CLIPS + n) * s->replicas * s->channels + channel] = total / now->t * scale + shift;
      }
  }
}

/* In training: fills the workspaces of all replicas, which the backward pass reads, the statistics and y. */
int trunk_forward(const trunk *s, const block *blocks, const float *x, const int64_t *index, const int32_t *views,
                  float *workspaces, float *y) {
  if (!in_range(s, index, views)) return OUT_OF_RANGE;
  layer layers[MOST_BLOCKS];
  long parts = parts_of(s), size = lay_out(s, layers, parts);
  int32_t *masks = make_masks(s, layers);
  double *moments = malloc(parts * s->channels * 2 * sizeof(double));
  int failed = !masks || !moments;
#pragma omp parallel num_threads(s->threads)
  for (long r = 0; r < s->replicas && !failed; r++) {
    float *work = workspaces + r * size;
    for (long l = 0; l < s->blocks; l++) {
      const layer *now = layers + l;
      const block *b = blocks + l;
      int last = l == s->blocks - 1;
#pragma omp for
      for (long p = 0; p < parts; p++) {
        float *in = work + now->x + p * now->x_part + GUARD, *a = work + now->a + p * now->a_part;
        if (!l) gather(s, now, x, index, views, r, p, in);
        activate(s, now, b, r, p, in, a);
        for (long c = 0; c < s->channels; c++)
          moments_of(now, mask_of(s, now, p), clips_of(s, p), a + c * now->row, moments + (p * s->channels + c) * 2);
      }
#pragma omp for
      for (long c = 0; c < s->channels; c++)
        merge(s, now, b, moments + 2 * c, 2 * s->channels, r * s->channels + c);
#pragma omp for
      for (long p = 0; p < parts; p++)
        pool(s, now, b, r, p, last, work + now->a + p * now->a_part,
             last ? NULL : work + now[1].x + p * now[1].x_part + GUARD, y);
    }
  }
  free(masks), free(moments);
  return failed ? NO_MEMORY : GOOD;
}

/* In inference: by the statistics that stand in the blocks, each part through all blocks at once. */
int trunk_infer(const trunk *s, const block *blocks, const float *x, const int64_t *index, const int32_t *views,
                float *y) {
  if (!in_range(s, index, views)) return OUT_OF_RANGE;
  layer layers[MOST_BLOCKS];
  long parts = parts_of(s), size = lay_out(s, layers, 1);
  int32_t *masks = make_masks(s, layers);
  int failed = !masks;
#pragma omp parallel num_threads(s->threads)
  {
    float *work = reals(size);
    if (!work) failed = 1;
#pragma omp for collapse(2)
    for (long r = 0; r < s->replicas; r++)
      for (long p = 0; p < parts; p++) {
        if (failed) continue;
        gather(s, layers, x, index, views, r, p, work + layers[0].x + GUARD);
        for (long l = 0; l < s->blocks; l++) {
          const layer *now = layers + l;
          int last = l == s->blocks - 1;
          activate(s, now, blocks + l, r, p, work + now->x + GUARD, work + now->a);
          pool(s, now, blocks + l, r, p, last, work + now->a, last ? NULL : work + now[1].x + GUARD, y);
        }
      }
    free(work);
  }
  free(masks);
  return failed ? NO_MEMORY : GOOD;
}

INLINE void pair_sums(const float *dy, const float *a, long length, int smaller, float mean, double *total,
                      double *product) {
  float sum_of = 0, with = 0;
#pragma omp simd reduction(+ : sum_of, with)
  for (long i = 0; i < length; i++) {
    sum_of += dy[i];
    with += dy[i] * (chosen(a[2 * i], a[2 * i + 1], smaller) - mean);
  }
  *total += sum_of;
  *product += with;
}

/* The gradients of a channel's scale and shift: the sums over the batch of dy, and of dy times what it was taken from,
   less the mean and by the deviation. dy: the next block's rows of gradients, or (clips, replicas * channels). */
static void norm_gradients(const trunk *s, const layer *now, const block *b, long r, long c, int last,
                           const float *work, const float *dy) {
  long channel = r * s->channels + c;
  float mean = b->mean[channel];
  double total = 0, product = 0;
  for (long p = 0; p < parts_of(s); p++) {
    const float *row = work + now->a + p * now->a_part + c * now->row;
    if (!last) {
      const float *from = dy + (p * s->channels + place_of_channel(s, c)) * now[1].row;
      if (b->gamma[channel] < 0) pair_sums(from, row, now[1].row, 1, mean, &total, &product);
      else pair_sums(from, row, now[1].row, 0, mean, &total, &product);
    } else
      for (long n = 0; n < clips_of(s, p); n++) {
        float with = 0, one = dy[(p * CLIPS + n) * s->replicas * s->channels + channel];
#pragma omp simd reduction(+ : with)
        for (long i = 0; i < now->t; i++) with += row[n * now->segment + i];
        total += one;
        product += one * (with / now->t - mean);
      }
  }
  b->d_beta[channel] = total;
  b->d_gamma[channel] = product / sqrt((double)b->variance[channel] + s->eps);
}

INLINE void unpool_pairs(const float *dy, const float *a, long length, int smaller, float *to) {
  for (long i = 0; i < length; i++) {
    int one = chosen(a[2 * i], a[2 * i + 1], smaller) == a[2 * i]; /* of equals the first */
    to[2 * i] = one ? dy[i] : 0;
    to[2 * i + 1] = one ? 0 : dy[i];
  }
}

/* The gradient before the ReLU of one channel of a part; returns its sum. The gradient after pooling goes to where the
   pooled value was taken from; BatchNorm takes its mean and its share along the activation. */
static float unpool(const trunk *s, const layer *now, const block *b, long r, long c, long part, int last,
                    const float *row, const float *dy, float *to) {
  long channel = r * s->channels + c;
  float count = (float)s->clips * now->t, inverse = 1 / sqrtf(b->variance[channel] + s->eps), total = 0;
  float scale = b->gamma[channel] * inverse, mean = b->mean[channel];
  float level = b->d_beta[channel] / count, slope = b->d_gamma[channel] * inverse / count;
  if (!last) {
    const float *from = dy + (part * s->channels + place_of_channel(s, c)) * now[1].row;
    if (scale < 0) unpool_pairs(from, row, now[1].row, 1, to);
    else unpool_pairs(from, row, now[1].row, 0, to);
  } else {
    memset(to, 0, now->row * sizeof(float));
    for (long n = 0; n < clips_of(s, part); n++) {
      float each = dy[(part * CLIPS + n) * s->replicas * s->channels + channel] / now->t;
      for (long i = 0; i < now->t; i++) to[n * now->segment + i] = each;
    }
  }
#pragma omp simd reduction(+ : total)
  for (long i = 0; i < now->row; i++) {
    float d = row[i] <= 0 ? 0 : scale * (to[i] - level - (row[i] - mean) * slope);
    to[i] = d;
    total += d;
  }
  return total;
}

/* A replica's weights as the gradient of the input needs them: in and out exchanged within groups, taps turned round. */
static void turn(const trunk *s, const layer *now, const float *w, float *turned) {
  for (long g = 0; g < s->groups; g++, w += now->c_out * now->c_in * TAPS, turned += now->c_out * now->c_in * TAPS)
    for (long o = 0; o < now->c_out; o++)
      for (long c = 0; c < now->c_in; c++)
        for (int k = 0; k < TAPS; k++)
          turned[(c * now->c_out + o) * TAPS + k] = w[(o * now->c_in + c) * TAPS + TAPS - 1 - k];
}

/* The gradients of a part: of its weights and biases, added to d_weight and d_bias, and of its input, unless dx is
   NULL. dz: room for the rows of a group, and for guards. */
static void part_gradients(const trunk *s, const layer *now, const block *b, long r, long p, int last,
                           const float *work, const float *turned, const float *dy, float *dz, float *dx,
                           float *d_weight, float *d_bias) {
  const float *x = work + now->x + p * now->x_part + GUARD, *a = work + now->a + p * now->a_part;
  long weights = now->c_out * now->c_in * TAPS;
  for (long g = 0; g < s->groups; g++) {
    for (long o = 0; o < now->c_out; o++) {
      long c = g * now->c_out + o;
      d_bias[c] += unpool(s, now, b, r, c, p, last, a + c * now->row, dy, dz + o * now->row);
    }
    rows back = {.c_out = now->c_out, .c_in = now->c_in, .taps = TAPS, .length = now->row, .offset = OFFSETS,
                 .x_row = now->row, .w_row = now->c_in * TAPS, .out_row = now->row};
    weight_gradient(&back, dz, x + g * now->c_in * now->row, d_weight + g * weights);
    if (!dx) continue;
    rows rows = {.c_out = now->c_in, .c_in = now->c_out, .taps = TAPS, .length = now->row, .offset = OFFSETS,
                 .x_row = now->row, .w_row = now->c_out * TAPS, .out_row = now->row, .mask = mask_of(s, now, p)};
    convolve(&rows, dz, turned + g * weights, dx + (p * s->groups + g) * now->c_in * now->row);
  }
}

/* All gradients of weights, from dy (clips, replicas * channels) and what trunk_forward left. */
int trunk_backward(const trunk *s, const block *blocks, const float *dy, const float *workspaces) {
  layer layers[MOST_BLOCKS];
  long parts = parts_of(s), size = lay_out(s, layers, parts), most = 0;
  int32_t *masks = make_masks(s, layers);
  for (long l = 0; l < s->blocks; l++) {
    long weights = s->channels * layers[l].c_in * TAPS;
    most = weights > most ? weights : most;
  }
  /* For each part its gradients; weights turned round; and gradients of two blocks' inputs, of which none is longer than
     the second block's. */
  long part_size = most + s->channels, dx_size = parts * s->channels * (s->blocks > 1 ? layers[1].row : 0);
  float *sums = malloc(parts * part_size * sizeof(float)), *turned = malloc(most * sizeof(float));
  float *gradients = reals(2 * dx_size);
  int failed = !masks || !sums || !turned || !gradients;
#pragma omp parallel num_threads(s->threads)
  {
    float *dz = reals(layers[0].c_out * layers[0].row + 2 * GUARD);
    if (!dz) failed = 1;
    else memset(dz, 0, GUARD * sizeof(float));
#pragma omp barrier
    for (long r = 0; r < s->replicas && !failed; r++) {
      const float *work = workspaces + r * size, *from = dy;
      for (long l = s->blocks - 1; l >= 0; l--) {
        const layer *now = layers + l;
        const block *b = blocks + l;
        int last = l == s->blocks - 1;
        long weights = s->channels * now->c_in * TAPS;
        float *dx = l ? gradients + l % 2 * dx_size : NULL;
#pragma omp single
        turn(s, now, b->weight + r * weights, turned);
#pragma omp for
        for (long c = 0; c < s->channels; c++) norm_gradients(s, now, b, r, c, last, work, from);
        memset(dz + GUARD + now->c_out * now->row, 0, GUARD * sizeof(float));
#pragma omp for
        for (long p = 0; p < parts; p++) {
          float *d_weight = sums + p * part_size, *d_bias = d_weight + most;
          memset(d_weight, 0, part_size * sizeof(float));
          part_gradients(s, now, b, r, p, last, work, turned, from, dz + GUARD, dx, d_weight, d_bias);
        }
#pragma omp for
        for (long i = 0; i < part_size; i++) {
          float total = 0;
          for (long p = 0; p < parts; p++) total += sums[p * part_size + i];
          if (i < weights) b->d_weight[r * weights + i] = total;
          else if (i >= most) b->d_bias[r * s->channels + i - most] = total;
        }
        from = dx;
      }
    }
    free(dz);
  }
  free(masks), free(sums), free(turned), free(gradients);
  return failed ? NO_MEMORY : GOOD;
}
