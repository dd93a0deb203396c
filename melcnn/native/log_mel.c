/* Log-mel features of int16 clips, in double precision: Fourier transforms of several frames at once, one a lane of a
   register; power, mel filters, logarithm. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FRAMES = 8 };
typedef double vec __attribute__((vector_size(8 * FRAMES), may_alias));
typedef int64_t bits __attribute__((vector_size(8 * FRAMES), may_alias));

typedef struct {
  vec *re, *im;
} numbers;

static const double PI = 3.14159265358979323846;

/* One stage of Stockham's transform (decimation in frequency, autosorting): transforms of `length` numbers at a
   distance of `s` become `radix` times as many of length / radix. turn: cos and -sin of 2 pi j / length. */
static inline __attribute__((always_inline)) void
stage(int radix, long length, long s, const numbers x, numbers y, const double *turn) {
  long m = length / radix;
  double c1 = cos(2 * PI / 5), s1 = sin(2 * PI / 5), c2 = cos(4 * PI / 5), s2 = sin(4 * PI / 5), half3 = sqrt(3) / 2;
  for (long q = 0; q < m; q++) {
    double wr[5], wi[5];
    for (int k = 0; k < radix; k++) wr[k] = turn[2 * (q * k)], wi[k] = turn[2 * (q * k) + 1];
    for (long i = 0; i < s; i++) {
      const vec *re = x.re + s * q + i, *im = x.im + s * q + i;
      vec br[5], bi[5];
      if (radix == 2) {
        br[0] = re[0] + re[s * m], bi[0] = im[0] + im[s * m];
        br[1] = re[0] - re[s * m], bi[1] = im[0] - im[s * m];
      } else if (radix == 3) {
        vec tr = re[s * m] + re[2 * s * m], ti = im[s * m] + im[2 * s * m];
        vec ur = re[0] - 0.5 * tr, ui = im[0] - 0.5 * ti;
        vec vr = half3 * (im[s * m] - im[2 * s * m]), vi = half3 * (re[2 * s * m] - re[s * m]);
        br[0] = re[0] + tr, bi[0] = im[0] + ti;
        br[1] = ur + vr, bi[1] = ui + vi;
        br[2] = ur - vr, bi[2] = ui - vi;
      } else if (radix == 4) {
        vec ar = re[0] + re[2 * s * m], ai = im[0] + im[2 * s * m];
        vec cr = re[0] - re[2 * s * m], ci = im[0] - im[2 * s * m];
        vec dr = re[s * m] + re[3 * s * m], di = im[s * m] + im[3 * s * m];
        vec er = im[s * m] - im[3 * s * m], ei = re[3 * s * m] - re[s * m];
        br[0] = ar + dr, bi[0] = ai + di;
        br[1] = cr + er, bi[1] = ci + ei;
        br[2] = ar - dr, bi[2] = ai - di;
        br[3] = cr - er, bi[3] = ci - ei;
      } else {
        vec t1r = re[s * m] + re[4 * s * m], t1i = im[s * m] + im[4 * s * m];
        vec t2r = re[2 * s * m] + re[3 * s * m], t2i = im[2 * s * m] + im[3 * s * m];
        vec t3r = re[s * m] - re[4 * s * m], t3i = im[s * m] - im[4 * s * m];
        vec t4r = re[2 * s * m] - re[3 * s * m], t4i = im[2 * s * m] - im[3 * s * m];
        vec u1r = re[0] + c1 * t1r + c2 * t2r, u1i = im[0] + c1 * t1i + c2 * t2i;
        vec u2r = re[0] + c2 * t1r + c1 * t2r, u2i = im[0] + c2 * t1i + c1 * t2i;
        vec v1r = s1 * t3i + s2 * t4i, v1i = -s1 * t3r - s2 * t4r;
        vec v2r = s2 * t3i - s1 * t4i, v2i = -s2 * t3r + s1 * t4r;
        br[0] = re[0] + t1r + t2r, bi[0] = im[0] + t1i + t2i;
        br[1] = u1r + v1r, bi[1] = u1i + v1i;
        br[2] = u2r + v2r, bi[2] = u2i + v2i;
        br[3] = u2r - v2r, bi[3] = u2i - v2i;
        br[4] = u1r - v1r, bi[4] = u1i - v1i;
      }
      for (int k = 0; k < radix; k++) {
        y.re[s * (radix * q + k) + i] = br[k] * wr[k] - bi[k] * wi[k];
        y.im[s * (radix * q + k) + i] = br[k] * wi[k] + bi[k] * wr[k];
      }
    }
  }
}

/* The radices that `n` is made of, 0 behind the last; returns whether there are no others than 4, 2, 3 and 5. */
static int factors(long n, int radices[64]) {
  static const int known[] = {4, 2, 3, 5};
  int found = 0;
  for (int i = 0; i < 4; i++)
    while (n % known[i] == 0) radices[found++] = known[i], n /= known[i];
  radices[found] = 0;
  return n == 1;
}

int supports(long n_fft) {
  int radices[64];
  return n_fft % 2 == 0 && factors(n_fft / 2, radices);
}

/* log(x) of positive normal numbers: x = 2^e m with m between sqrt(1/2) and sqrt(2), and
   log(m) = 2 artanh((m - 1) / (m + 1)); its series is cut at 1e-13. */
static vec logarithm(vec x) {
  bits raw = (bits)x;
  bits exponent = ((raw - 0x3fe6a09e667f3bcdLL) >> 52); /* of x / sqrt(1/2) */
  vec m = (vec)(raw - (exponent << 52));
  vec s = (m - 1) / (m + 1), z = s * s, series = 1.0 / 15 + 0 * z;
  for (int k = 13; k >= 1; k -= 2) series = series * z + 1.0 / k;
  return __builtin_convertvector(exponent, vec) * 0.693147180559945309417 + 2 * s * series;
}

/* waveforms (clips, samples) to out (clips, n_mels, samples / hop + 1) float32. Frames are centred and reflected at
   the ends. window (n_fft) holds the scale of int16 too. Filter j weighs `width[j]` bins from `low[j]` on by the next
   numbers of `weights`. Returns 0, 1 if there is no memory, 2 if n_fft is not supported. */
int log_mel(const int16_t *waveforms, long clips, long samples, long n_fft, long hop, const double *window, long n_mels,
            const int32_t *low, const int32_t *width, const double *weights, double offset, float *out) {
  int radices[64];
  if (n_fft % 2 || !factors(n_fft / 2, radices)) return 2;
  long n = n_fft / 2, frames = samples / hop + 1;
  double *turn = malloc(2 * sizeof(double) * (n_fft + 6 * n)); /* of the real transform, then of each stage */
  double *padded = malloc(sizeof(double) * (samples + n_fft));
  vec *work = aligned_alloc(64, sizeof(vec) * (5 * n + 1));
  if (!turn || !padded || !work) return free(turn), free(padded), free(work), 1;
  for (long j = 0; j < n_fft; j++) turn[2 * j] = cos(2 * PI * j / n_fft), turn[2 * j + 1] = -sin(2 * PI * j / n_fft);
  double *stages = turn + 2 * n_fft, *next = stages;
  for (long length = n, i = 0; radices[i]; length /= radices[i++])
    for (long j = 0; j < length; j++)
      *next++ = cos(2 * PI * j / length), *next++ = -sin(2 * PI * j / length);
  vec *power = work + 4 * n;
  for (long clip = 0; clip < clips; clip++) {
    const int16_t *wave = waveforms + clip * samples;
    for (long i = -n; i < samples + n; i++) {
      long j = i < 0 ? -i : i;
      padded[i + n] = wave[j < samples ? j : 2 * (samples - 1) - j];
    }
    for (long start = 0; start < frames; start += FRAMES) {
      numbers a = {work, work + n}, b = {work + 2 * n, work + 3 * n};
      for (int f = 0; f < FRAMES; f++) { /* two real numbers as one complex; frames behind the last repeat it */
        long frame = start + f < frames ? start + f : frames - 1;
        const double *from = padded + frame * hop;
        double *re = (double *)a.re + f, *im = (double *)a.im + f;
        for (long i = 0; i < n; i++) {
          re[i * FRAMES] = from[2 * i] * window[2 * i];
          im[i * FRAMES] = from[2 * i + 1] * window[2 * i + 1];
        }
      }
      const double *table = stages;
      for (long length = n, s = 1, i = 0; radices[i]; s *= radices[i], length /= radices[i], i++) {
        switch (radices[i]) { /* so that each is compiled for its radix */
          case 2: stage(2, length, s, a, b, table); break;
          case 3: stage(3, length, s, a, b, table); break;
          case 4: stage(4, length, s, a, b, table); break;
          default: stage(5, length, s, a, b, table);
        }
        table += 2 * length;
        numbers swap = a;
        a = b, b = swap;
      }
      /* X[k] = E + exp(-2 pi i k / n_fft) O, with E and O the transforms of the even and of the odd numbers. */
      for (long k = 0; k <= n / 2; k++) {
        long other = k ? n - k : 0;
        vec er = 0.5 * (a.re[k] + a.re[other]), ei = 0.5 * (a.im[k] - a.im[other]);
        vec or = 0.5 * (a.im[k] + a.im[other]), oi = 0.5 * (a.re[other] - a.re[k]);
        double c = turn[2 * k], s = turn[2 * k + 1];
        vec tr = or * c - oi * s, ti = or * s + oi * c;
        power[k] = (er + tr) * (er + tr) + (ei + ti) * (ei + ti);
        power[n - k] = (er - tr) * (er - tr) + (ei - ti) * (ei - ti);
      }
      const double *weight = weights;
      for (long j = 0; j < n_mels; j++) {
        vec mel = offset + (vec){0};
        for (int i = 0; i < width[j]; i++) mel += *weight++ * power[low[j] + i];
        vec value = logarithm(mel);
        float *to = out + (clip * n_mels + j) * frames + start;
        for (int f = 0; f < FRAMES && start + f < frames; f++) to[f] = value[f];
      }
    }
  }
  free(turn), free(padded), free(work);
  return 0;
}
