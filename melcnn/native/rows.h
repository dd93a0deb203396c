/* Convolutions of rows, in tiles of sums that stay in registers. A row is the data of one channel, of several clips one
   behind the other with room between them, so that tiles are full however short a clip is; what is computed across two
   clips is not used. Tap k of a convolution reads a row offset[k] further on: strides, dilations and the exchange of
   directions in a gradient are all matters of how rows are laid out and of offsets. */
#pragma once
#include "lanes.h"
#include <stdlib.h>

static REAL *reals(size_t count) { return aligned_alloc(64, (count * sizeof(REAL) / 64 + 1) * 64); }

INLINE long up_to(long count, long multiple) { return (count + multiple - 1) / multiple * multiple; }

/* What a convolution of rows needs to know. bias: NULL for none. mask: the elements of an output row that are not to be
   zero; NULL for all. relu: after the bias. x_row, w_row, out_row: from one row to the next. */
typedef struct {
  long c_out, c_in, taps, length;
  const long *offset;
  long x_row, w_row, out_row;
  const REAL *bias;
  const BITS *mask;
  int relu;
} rows;

INLINE void tile(int count, int vectors, const rows *s, const REAL *x, const REAL *w, const REAL *bias,
                 const BITS *mask, REAL *out) {
  vec sums[TILE_ROWS][TILE_VECTORS];
  for (int r = 0; r < count; r++)
    for (int v = 0; v < vectors; v++) sums[r][v] = splat(bias ? bias[r] : 0);
  for (long c = 0; c < s->c_in; c++)
    for (long k = 0; k < s->taps; k++) {
      const REAL *from = x + c * s->x_row + s->offset[k], *weights = w + c * s->taps + k;
      vec in[TILE_VECTORS];
      for (int v = 0; v < vectors; v++) {
        in[v] = load(from + v * LANES);
        IN_REGISTER(in[v]);
      }
      for (int r = 0; r < count; r++) {
        vec weight = splat(weights[r * s->w_row]);
        for (int v = 0; v < vectors; v++) sums[r][v] += weight * in[v];
      }
    }
  for (int r = 0; r < count; r++)
    for (int v = 0; v < vectors; v++) {
      vec z = sums[r][v];
      if (s->relu) z = (vec)((bits)z & ~(bits)(z < 0)); /* so that what is no number stays none */
      if (mask) z = (vec)((bits)z & *(const bits *)(mask + v * LANES));
      store(out + r * s->out_row + v * LANES, z);
    }
}

#define TILE(count, vectors) \
  case count * 8 + vectors: tile(count, vectors, s, in, weights, bias, mask, to); break;
#if TILE_VECTORS == 4
#define TILES(count) TILE(count, 1) TILE(count, 2) TILE(count, 3) TILE(count, 4)
#else
#define TILES(count) TILE(count, 1) TILE(count, 2)
#endif

/* out[o][i] = bias[o] + sum over c, k of w[o][c][k] x[c][i + offset[k]] for i < length, a multiple of LANES. */
static void convolve(const rows *s, const REAL *x, const REAL *w, REAL *out) {
  for (long i = 0; i < s->length; i += TILE_VECTORS * LANES) {
    long left = (s->length - i) / LANES;
    int vectors = left < TILE_VECTORS ? left : TILE_VECTORS;
    const REAL *in = x + i;
    const BITS *mask = s->mask ? s->mask + i : NULL;
    for (long o = 0, count; o < s->c_out; o += count) {
      count = s->c_out - o >= 4 ? 4 : s->c_out - o >= 2 ? 2 : 1;
      const REAL *weights = w + o * s->w_row, *bias = s->bias ? s->bias + o : NULL;
      REAL *to = out + o * s->out_row + i;
      switch (count * 8 + vectors) { TILES(1) TILES(2) TILES(4) }
    }
  }
}

INLINE void gradient_tile(int count, int pairs, const rows *s, const REAL *dz, const REAL *const *x, REAL *dw) {
  vec sums[GRADIENT_ROWS][GRADIENT_PAIRS];
  for (int r = 0; r < count; r++)
    for (int p = 0; p < pairs; p++) sums[r][p] = (vec){0};
  for (long i = 0; i < s->length; i += LANES) {
    vec out[GRADIENT_ROWS];
    for (int r = 0; r < count; r++) {
      out[r] = load(dz + r * s->out_row + i);
      IN_REGISTER(out[r]);
    }
    for (int p = 0; p < pairs; p++) {
      vec in = load(x[p] + i);
      IN_REGISTER(in);
      for (int r = 0; r < count; r++) sums[r][p] += out[r] * in;
    }
  }
  for (int r = 0; r < count; r++)
    for (int p = 0; p < pairs; p++) dw[r * s->w_row + p] += sum(sums[r][p]);
}

#define GRADIENT(rows_now, pairs_now) \
  if (count == rows_now && pairs == pairs_now) gradient_tile(rows_now, pairs_now, s, dz + o * s->out_row, from, to);

/* dw[o][c][k] += sum over i < length of dz[o][i] x[c][i + offset[k]]: dz is zero where it is not of a clip, and x is a
   number there. */
static void weight_gradient(const rows *s, const REAL *dz, const REAL *x, REAL *dw) {
  long all = s->c_in * s->taps;
  for (long o = 0, count; o < s->c_out; o += count) {
    count = s->c_out - o >= GRADIENT_ROWS ? GRADIENT_ROWS : s->c_out - o >= 2 ? 2 : 1;
    for (long p = 0, pairs; p < all; p += pairs) {
      pairs = all - p >= GRADIENT_PAIRS ? GRADIENT_PAIRS : all - p >= 3 ? 3 : 1;
      const REAL *from[GRADIENT_PAIRS];
      for (long j = 0; j < pairs; j++) from[j] = x + (p + j) / s->taps * s->x_row + s->offset[(p + j) % s->taps];
      REAL *to = dw + o * s->w_row + p;
      GRADIENT(1, 1)
      GRADIENT(2, 1)
      GRADIENT(1, 3)
      GRADIENT(2, 3)
#if GRADIENT_ROWS == 4
      GRADIENT(4, 1)
      GRADIENT(4, 3)
#endif
#if GRADIENT_PAIRS == 6
      GRADIENT(1, 6)
      GRADIENT(2, 6)
      GRADIENT(4, 6)
#endif
    }
  }
}
