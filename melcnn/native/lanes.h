/* Vectors of floats as wide as the processor's registers, in the language that GCC and Clang share. */
#pragma once
#include <string.h>

/* TILE_ROWS x TILE_VECTORS sums, and GRADIENT_ROWS x GRADIENT_COLUMNS x 3, stay in the registers that there are. */
#if defined(__AVX512F__)
#define LANES 16
#define TILE_VECTORS 4
#define GRADIENT_ROWS 4
#define GRADIENT_COLUMNS 2
#elif defined(__AVX__)
#define LANES 8
#define TILE_VECTORS 2
#define GRADIENT_ROWS 2
#define GRADIENT_COLUMNS 1
#else
#define LANES 4
#define TILE_VECTORS 4
#define GRADIENT_ROWS 4
#define GRADIENT_COLUMNS 1
#endif
#define TILE_ROWS 4

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const float *from) { return *(const vec *)from; }
INLINE void store(float *to, vec value) { *(vec *)to = value; }
INLINE vec splat(float value) { return value - (vec){0}; }

/* Keeps a vector in a register: a compiler that reads it from memory again for each product, at an odd address,
   halves the speed. */
#if defined(__x86_64__)
#define IN_REGISTER(value) __asm__("" : "+v"(value))
#elif defined(__aarch64__)
#define IN_REGISTER(value) __asm__("" : "+w"(value))
#else
#define IN_REGISTER(value)
#endif

INLINE float sum(vec value) {
  float lane[LANES];
  store(lane, value);
  for (int width = LANES / 2; width; width /= 2)
    for (int i = 0; i < width; i++) lane[i] += lane[i + width];
  return lane[0];
}
