/* How the trunk's data lies in memory. Within a part, which is CLIPS clips, a channel is one row: clips one behind the
   other, each with at least one zero behind it, which is the padding of both its neighbours. A block's row has twice the
   length of the next block's, so that pooling takes neighbours in pairs all along the row. */
#pragma once
#include "rows.h"

enum { GOOD = 0, NO_MEMORY = 1, OUT_OF_RANGE = 2 };
enum { TAPS = 3, CLIPS = 8, GUARD = LANES, MOST_BLOCKS = 8 };

static const long OFFSETS[TAPS] = {-1, 0, 1};

/* Of all replicas. mean and variance are those that normalise: the batch's, biased, which training leaves there beside
   moving the running ones, or those that stand there. */
typedef struct {
  const float *weight, *bias, *gamma, *beta;
  float *mean, *variance, *running_mean, *running_variance, *d_weight, *d_bias, *d_gamma, *d_beta;
  float momentum;
} block;

/* Sizes. groups are those of one replica, data_set how many clips there are to pick from. interleaved: each group of the
   first block sees mels from all over the spectrum; shuffled: each group of the others channels from several. */
typedef struct {
  long replicas, groups, n_mels, channels, blocks, frames, clips, data_set, threads, interleaved, shuffled;
  float eps;
} trunk;

/* One block's rows: c_in and c_out of a group; t frames and `segment` elements of a row are one clip's. x and a say where
   in a replica's workspace its input and its activation after ReLU begin, x_part and a_part how long a part of them is. */
typedef struct {
  long c_in, c_out, t, segment, row, x, a, x_part, a_part;
  const int32_t *mask, *last_mask;
} layer;

/* Where a mel lies in the first block's input, and a block's channel in the next one's (`melcnn.model`). */
static long place_of_mel(const trunk *s, long m) {
  return s->interleaved ? m % s->groups * (s->n_mels / s->groups) + m / s->groups : m;
}

static long place_of_channel(const trunk *s, long c) {
  long each = s->channels / s->groups;
  return s->shuffled ? c % each * s->groups + c / each : c;
}

static long parts_of(const trunk *s) { return (s->clips + CLIPS - 1) / CLIPS; }

/* The floats of one replica's workspace of so many parts. */
static long lay_out(const trunk *s, layer *layers, long parts) {
  long at_once = s->clips < CLIPS ? s->clips : CLIPS, last = s->blocks - 1, at = 0;
  long segment = (s->frames >> last) + 1, row = up_to(at_once * segment, LANES);
  for (long l = 0; l < s->blocks; l++) {
    layer *now = layers + l;
    now->c_in = (l ? s->channels : s->n_mels) / s->groups;
    now->c_out = s->channels / s->groups;
    now->t = s->frames >> l;
    now->segment = segment << (last - l);
    now->row = row << (last - l);
    now->x_part = now->c_in * s->groups * now->row + 2 * GUARD;
    now->a_part = s->channels * now->row;
    now->x = at;
    now->a = at += parts * now->x_part;
    at += parts * now->a_part;
  }
  return at;
}

/* Elements of a row that are of a clip, all bits set: of a part of CLIPS, and of the last. NULL without memory. */
static int32_t *make_masks(const trunk *s, layer *layers) {
  long length = 0, at_once = s->clips < CLIPS ? s->clips : CLIPS, left = s->clips - (parts_of(s) - 1) * CLIPS;
  for (long l = 0; l < s->blocks; l++) length += layers[l].row;
  int32_t *masks = calloc(2 * length, sizeof(int32_t)), *at = masks;
  for (long l = 0; l < s->blocks && masks; l++, at += layers[l - 1].row) {
    for (int last = 0; last < 2; last++)
      for (long n = 0; n < (last ? left : at_once); n++)
        memset(at + last * length + n * layers[l].segment, 0xff, layers[l].t * sizeof(int32_t));
    layers[l].mask = at;
    layers[l].last_mask = at + length;
  }
  return masks;
}

static const int32_t *mask_of(const trunk *s, const layer *now, long part) {
  return part == parts_of(s) - 1 ? now->last_mask : now->mask;
}

static long clips_of(const trunk *s, long part) {
  return s->clips - part * CLIPS < CLIPS ? s->clips - part * CLIPS : CLIPS;
}
