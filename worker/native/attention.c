/* Causal attention over whole windows, a head at a time, in float32 whatever it is given. */
#include "rows.h"

#define TILE 6 /* queries taken together */
#ifdef __AVX512F__
#define LANES 16 /* floats of a vector */
#define WIDE 4   /* vectors of values taken together: TILE * WIDE sums stay in registers */
#else
#define LANES 8
#define WIDE 2
#endif

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4)));

static inline float value_at(const void *x, int64_t i, int half) {
    return half ? widen(((const bfloat16 *)x)[i]) : ((const float *)x)[i];
}

/* scores[r][j] = q_r . k_j for the keys of whole pairs of vectors up to `keys`. `packed` holds the
   keys LANES by LANES: [key / LANES][dim][key % LANES]. */
static void query_times_keys(const float *q, const float *packed, int64_t dim, int64_t keys,
                             float *scores, int64_t stride) {
    for (int64_t key = 0; key < keys; key += 2 * LANES) {
        const float *left = packed + key * dim, *right = left + LANES * dim;
        vector sum[TILE][2] = {{{0}}};
        for (int64_t d = 0; d < dim; d++) {
            vector a = *(const vector *)(left + d * LANES), b = *(const vector *)(right + d * LANES);
            for (int r = 0; r < TILE; r++) {
                sum[r][0] += q[r * dim + d] * a;
                sum[r][1] += q[r * dim + d] * b;
            }
        }
        for (int r = 0; r < TILE; r++) {
            *(vector *)(scores + r * stride + key) = sum[r][0];
            *(vector *)(scores + r * stride + key + LANES) = sum[r][1];
        }
    }
}

/* out[r][d] = sum over `keys` of p[r][j] * v[j][d], so many vectors of d. */
#define WEIGHTS_TIMES_VALUES(NAME, VECTORS)                                                      \
    static void NAME(const float *p, int64_t stride, const float *v, int64_t dim, int64_t keys,  \
                     float *out) {                                                               \
        vector sum[TILE][VECTORS] = {{{0}}};                                                     \
        for (int64_t j = 0; j < keys; j++)                                                       \
            for (int c = 0; c < VECTORS; c++) {                                                  \
                vector x = *(const vector *)(v + j * dim + c * LANES);                           \
                for (int r = 0; r < TILE; r++) sum[r][c] += p[r * stride + j] * x;               \
            }                                                                                    \
        for (int r = 0; r < TILE; r++)                                                           \
            for (int c = 0; c < VECTORS; c++)                                                    \
                *(vector *)(out + r * dim + c * LANES) = sum[r][c];                              \
    }
WEIGHTS_TIMES_VALUES(weights_times_values_wide, WIDE)
WEIGHTS_TIMES_VALUES(weights_times_values_one, 1)

/* One head of one window. `room` holds 2 * padded * dim + TILE * (padded + 2 * dim) floats. */
static inline void causal_head(const void *query, const void *key, const void *value, int64_t tokens,
                        int64_t dim, int64_t padded, const int64_t *strides, double scale, int half,
                        void *out, float *room) {
    float *packed = room, *values = packed + padded * dim, *scores = values + padded * dim;
    float *q = scores + TILE * padded, *mixed = q + TILE * dim;
    memset(packed, 0, padded * dim * sizeof(float));
    for (int64_t j = 0; j < tokens; j++)
        for (int64_t d = 0; d < dim; d++) {
            packed[(j - j % LANES) * dim + d * LANES + j % LANES] =
                value_at(key, j * strides[1] + d, half);
            values[j * dim + d] = value_at(value, j * strides[2] + d, half);
        }
    for (int64_t first = 0; first < tokens; first += TILE) {
        int64_t rows = tokens - first < TILE ? tokens - first : TILE, keys = first + rows;
        for (int64_t r = 0; r < TILE; r++)
            for (int64_t d = 0; d < dim; d++)
                q[r * dim + d] =
                    r < rows ? scale * value_at(query, (first + r) * strides[0] + d, half) : 0.0f;
        query_times_keys(q, packed, dim, keys, scores, padded);
        float share[TILE];
        for (int64_t r = 0; r < TILE; r++) {
            float *x = scores + r * padded, most = x[0];
            int64_t seen = first + (r < rows ? r : rows - 1) + 1;
#pragma omp simd reduction(max : most)
            for (int64_t j = 0; j < seen; j++) most = x[j] > most ? x[j] : most;
            share[r] = 1.0 / exponentials_of(x, seen, most, 1);
            for (int64_t j = seen; j < keys; j++) x[j] = 0.0f;
        }
        int64_t d = 0;
        for (; d + WIDE * LANES <= dim; d += WIDE * LANES)
            weights_times_values_wide(scores, padded, values + d, dim, keys, mixed + d);
        for (; d < dim; d += LANES)
            weights_times_values_one(scores, padded, values + d, dim, keys, mixed + d);
        for (int64_t r = 0; r < rows; r++)
            for (d = 0; d < dim; d++) {
                float y = mixed[r * dim + d] * share[r];
                int64_t at = (first + r) * strides[3] + d;
                if (half) ((bfloat16 *)out)[at] = narrow(y);
                else ((float *)out)[at] = y;
            }
    }
}

/* softmax(scale q k^T, causal) v. `shape`: windows, heads, heads of k and v, tokens, dim (a multiple
   of LANES). `strides`: values from window to window, head to head and token to token, of q, k, v
   and out in turn. Returns 0, or 1 where there is no memory. */
int causal_attention(const void *query, const void *key, const void *value, const int64_t *shape,
                     const int64_t *strides, double scale, int half, void *out, int threads) {
    int64_t heads = shape[1], group = heads / shape[2], tokens = shape[3], dim = shape[4];
    int64_t padded = (tokens + 2 * LANES - 1) / (2 * LANES) * (2 * LANES);
    size_t size = half ? sizeof(bfloat16) : sizeof(float);
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        float *room = malloc((2 * padded * dim + TILE * (padded + 2 * dim)) * sizeof(float));
        failed = room == NULL;
#pragma omp for schedule(static)
        for (int64_t each = 0; each < shape[0] * heads; each++) {
            int64_t window = each / heads, head = each % heads, shared = head / group;
            const char *q = (const char *)query + (window * strides[0] + head * strides[1]) * size;
            const char *k = (const char *)key + (window * strides[3] + shared * strides[4]) * size;
            const char *v = (const char *)value + (window * strides[6] + shared * strides[7]) * size;
            char *o = (char *)out + (window * strides[9] + head * strides[10]) * size;
            int64_t rows[4] = {strides[2], strides[5], strides[8], strides[11]};
            if (room && half) causal_head(q, k, v, tokens, dim, padded, rows, scale, 1, o, room);
            if (room && !half) causal_head(q, k, v, tokens, dim, padded, rows, scale, 0, o, room);
        }
        free(room);
    }
    return failed;
}
