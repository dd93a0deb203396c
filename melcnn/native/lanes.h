/* Vectors as wide as the processor's registers, in the language that GCC and Clang share, of floats or of what REAL
   says. */
#pragma once
#include <stdint.h>
#include <string.h>

#ifndef REAL
#define REAL float
#define BITS int32_t
#endif

/* TILE_ROWS x TILE_VECTORS sums, and GRADIENT_ROWS x GRADIENT_PAIRS, stay in the registers that there are. */
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define TILE_VECTORS 4
#define GRADIENT_ROWS 4
#define GRADIENT_PAIRS 6
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define TILE_VECTORS 2
#define GRADIENT_ROWS 2
#define GRADIENT_PAIRS 3
#else
#define VECTOR_BYTES 16
#define TILE_VECTORS 4
#define GRADIENT_ROWS 4
#define GRADIENT_PAIRS 3
#endif
#define TILE_ROWS 4
#define LANES (VECTOR_BYTES / (int)sizeof(REAL))

typedef REAL vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
typedef BITS bits __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const REAL *from) { return *(const vec *)from; }
INLINE void store(REAL *to, vec value) { *(vec *)to = value; }
INLINE vec splat(REAL value) { return value - (vec){0}; }

/* Keeps a vector in a register: a compiler that reads it from memory again for each product, at an odd address,
   halves the speed. */
#if defined(__x86_64__)
#define IN_REGISTER(value) __asm__("" : "+v"(value))
#elif defined(__aarch64__)
#define IN_REGISTER(value) __asm__("" : "+w"(value))
#else
#define IN_REGISTER(value)
#endif

/* Halves added to halves, so that most of it is done by vectors too: networks with one group add up many of these. */
typedef REAL half __attribute__((vector_size(VECTOR_BYTES / 2), aligned(sizeof(REAL)), may_alias));

INLINE REAL sum(vec value) {
  REAL lane[LANES];
  store(lane, value);
  *(half *)lane += *(half *)(lane + LANES / 2);
#pragma GCC unroll 4
  for (int width = LANES / 4; width; width /= 2)
#pragma GCC unroll 4
    for (int i = 0; i < width; i++) lane[i] += lane[i + width];
  return lane[0];
}
