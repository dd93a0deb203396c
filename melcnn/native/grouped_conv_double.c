/* The same in double precision: what gradients are checked in. */
#define REAL double
#define BITS int64_t
#include "grouped_conv.c"
