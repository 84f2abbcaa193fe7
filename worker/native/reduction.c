/* Blocks of logits: their largest, their exponentials, and what is kept of them. */
#include "rows.h"

#define SPAN 64 /* logits looked at together for one that is large enough */

/* (rows, width) -> exp(logits - best) in its place; sums[row] = their sum. */
void exponentials(float *logits, int64_t rows, int64_t width, int64_t stride, const float *best,
                  double *sums, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++)
        sums[row] = exponentials_of(logits + row * stride, width, best[row], 1);
}

/* The k largest of a row so far, descending, the first of equals first; token i is start + i. */
static inline void largest_in(const float *x, int64_t width, int64_t start, int64_t k, float *v,
                              int64_t *id) {
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

void largest(const float *logits, int64_t rows, int64_t width, int64_t stride, int64_t start,
             int64_t k, float *values, int64_t *ids, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++)
        largest_in(logits + row * stride, width, start, k, values + row * k, ids + row * k);
}

/* One block of a row's logits joins what is known of the row: best (the largest logit), total (the
   sum of exp(logit - best)), found (the logits of its `wanted` tokens, where the block holds them)
   and the largest logit outside the first `apart` of these, the first of equals. With `scale`, the
   block becomes exp(logit - best) and scale what earlier blocks' exponentials must be scaled by. */
void fold(float *logits, int64_t rows, int64_t width, int64_t stride, int64_t start,
          const int64_t *wanted, int64_t n_wanted, int64_t apart, float *found, float *best,
          double *total, float *outside, int64_t *outside_id, double *scale, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        float *x = logits + row * stride, *seen = found + row * n_wanted;
        const int64_t *ids = wanted + row * n_wanted;
        float top = best[row];
        for (int64_t i = 0; i < n_wanted; i++) {
            int64_t place = ids[i] - start;
            if (place >= 0 && place < width) seen[i] = x[place];
        }
        for (int64_t i = 0; i < apart; i++) {
            int64_t place = ids[i] - start;
            if (place < 0 || place >= width) continue;
            top = x[place] > top ? x[place] : top;
            x[place] = -INFINITY;
        }
        largest_in(x, width, start, 1, outside + row, outside_id + row);
        top = outside[row] > top ? outside[row] : top;
        for (int64_t i = 0; i < apart; i++) {
            int64_t place = ids[i] - start;
            if (place >= 0 && place < width) x[place] = seen[i];
        }
        double shrink = exp((double)best[row] - top);
        double sum = scale ? exponentials_of(x, width, top, 1) : exponentials_of(x, width, top, 0);
        total[row] = total[row] * shrink + sum;
        if (scale) scale[row] = shrink;
        best[row] = top;
    }
}
