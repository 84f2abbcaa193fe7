/* What the pass does beside torch's matrix products, one thread a row. The order of the sums depends
   on nothing but the row's own width, so a row gives the same bits in whatever company it comes. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define RUN 512 /* numbers summed in float before the sum goes on in double */

typedef uint16_t bfloat16;

/* exp(x) for x <= 0, relative error 1.2e-7; below -87 it stays at exp(-87). NaN stays NaN. */
static inline float expf_(float x) {
    x = x < -87.0f ? -87.0f : x;
    float n = rintf(x * 1.44269504f);
    float r = fmaf(n, -0.693145752f, x);
    r = fmaf(n, -1.42860677e-6f, r);
    float p = 1.98756915e-4f;
    p = fmaf(p, r, 1.39819994e-3f);
    p = fmaf(p, r, 8.33345187e-3f);
    p = fmaf(p, r, 4.16657959e-2f);
    p = fmaf(p, r, 1.66666657e-1f);
    p = fmaf(p, r, 5.00000000e-1f);
    p = fmaf(p * r, r, r) + 1.0f;
    union { int32_t i; float f; } power = {((int32_t)n + 127) << 23};
    return p * power.f;
}

/* Sum of exp(x - top) over a row, which becomes these numbers if they are to be kept. */
static inline double exponentials_of(float *x, int64_t width, float top, int keep) {
    double sum = 0.0;
    for (int64_t start = 0; start < width; start += RUN) {
        int64_t end = start + RUN < width ? start + RUN : width;
        float part = 0.0f;
#pragma omp simd reduction(+ : part)
        for (int64_t i = start; i < end; i++) {
            float y = expf_(x[i] - top);
            if (keep) x[i] = y;
            part += y;
        }
        sum += part;
    }
    return sum;
}

static inline float widen(bfloat16 x) {
    union { uint32_t i; float f; } bits = {(uint32_t)x << 16};
    return bits.f;
}

/* To the nearest, ties to even; NaN stays NaN. */
static inline bfloat16 narrow(float x) {
    union { float f; uint32_t i; } bits = {x};
    uint32_t rounded = (bits.i + 0x7fff + ((bits.i >> 16) & 1)) >> 16;
    return x == x ? rounded : 0x7fc0;
}
