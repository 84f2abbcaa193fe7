/* Layers in one walk through memory. */
#include "rows.h"

static inline float same(float x) { return x; }

/* RMSNorm as transformers has it: x / rms(x), rounded to x's type, then times weight. */
#define RMS_NORM(NAME, TYPE, READ, WRITE)                                                        \
    void NAME(const TYPE *x, int64_t rows, int64_t width, const TYPE *weight, double eps,        \
              TYPE *out, int threads) {                                                          \
        _Pragma("omp parallel for num_threads(threads) schedule(static)")                        \
        for (int64_t row = 0; row < rows; row++) {                                               \
            const TYPE *from = x + row * width;                                                  \
            TYPE *to = out + row * width;                                                        \
            double sum = 0.0;                                                                    \
            for (int64_t start = 0; start < width; start += RUN) {                               \
                int64_t end = start + RUN < width ? start + RUN : width;                         \
                float part = 0.0f;                                                               \
                _Pragma("omp simd reduction(+ : part)")                                          \
                for (int64_t i = start; i < end; i++) part += READ(from[i]) * READ(from[i]);     \
                sum += part;                                                                     \
            }                                                                                    \
            float scale = (float)(1.0 / sqrt(sum / width + eps));                                \
            _Pragma("omp simd")                                                                  \
            for (int64_t i = 0; i < width; i++)                                                  \
                to[i] = WRITE(READ(weight[i]) * READ(WRITE(READ(from[i]) * scale)));             \
        }                                                                                        \
    }
RMS_NORM(rms_norm_float, float, same, same)
RMS_NORM(rms_norm_bfloat16, bfloat16, widen, narrow)

/* gate becomes silu(gate) * up, silu(gate) rounded to their type first, as two layers would. */
#define SILU_TIMES(NAME, TYPE, READ, WRITE)                                                      \
    void NAME(TYPE *gate, const TYPE *up, int64_t n, int threads) {                              \
        _Pragma("omp parallel for simd num_threads(threads) schedule(static)")                   \
        for (int64_t i = 0; i < n; i++) {                                                        \
            float x = READ(gate[i]), small = expf_(-fabsf(x));                                   \
            float silu = x * (x < 0.0f ? small : 1.0f) / (1.0f + small);                         \
            gate[i] = WRITE(READ(WRITE(silu)) * READ(up[i]));                                    \
        }                                                                                        \
    }
SILU_TIMES(silu_times_float, float, same, same)
SILU_TIMES(silu_times_bfloat16, bfloat16, widen, narrow)
