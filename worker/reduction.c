/* Rows of logits reduced in place, one thread a row. The order of the sums depends on nothing but
   the row's own width, so a row gives the same bits in whatever company it is reduced. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define SPAN 64   /* logits looked at together for one that is large enough */
#define RUN 512   /* exponentials summed in float before the sum goes on in double */

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

/* (rows, width) -> exp(logits - best) in its place; sums[row] = their sum. */
void exponentials(float *logits, int64_t rows, int64_t width, int64_t stride, const float *best,
                  double *sums, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        float *x = logits + row * stride, top = best[row];
        double sum = 0.0;
        for (int64_t start = 0; start < width; start += RUN) {
            int64_t end = start + RUN < width ? start + RUN : width;
            float part = 0.0f;
#pragma omp simd reduction(+ : part)
            for (int64_t i = start; i < end; i++) {
                x[i] = expf_(x[i] - top);
                part += x[i];
            }
            sum += part;
        }
        sums[row] = sum;
    }
}

/* The k largest of each row so far, descending, the first of equals first; token i is start + i. */
void largest(const float *logits, int64_t rows, int64_t width, int64_t stride, int64_t start,
             int64_t k, float *values, int64_t *ids, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const float *x = logits + row * stride;
        float *v = values + row * k;
        int64_t *id = ids + row * k;
        for (int64_t from = 0; from < width; from += SPAN) {
            int64_t to = from + SPAN < width ? from + SPAN : width;
            float most = -INFINITY;
#pragma omp simd reduction(max : most)
            for (int64_t i = from; i < to; i++) most = x[i] > most ? x[i] : most;
            if (!(most > v[k - 1])) continue;
            for (int64_t i = from; i < to; i++) {
                if (!(x[i] > v[k - 1])) continue;
                int64_t place = k - 1;
                for (; place > 0 && x[i] > v[place - 1]; place--) {
                    v[place] = v[place - 1];
                    id[place] = id[place - 1];
                }
                v[place] = x[i];
                id[place] = start + i;
            }
        }
    }
}
