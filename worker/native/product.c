#include "rows.h"
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#define LANES 16 /* sums of a vector */
#define PANEL 64 /* columns packed together */
#define STRIP 6  /* rows multiplied together */

/* out = x w^T in float32 from bfloat16: products are exact, sums float32's. x (rows, inner), w
   (columns, inner), inner even, out (rows, columns), all without gaps. Returns 0, 1 where there is
   no memory, 2 where the machine has no such instruction. */
int bfloat16_product(const bfloat16 *x, const bfloat16 *w, int64_t rows, int64_t columns,
                     int64_t inner, float *out, int threads) {
#ifdef __AVX512BF16__
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        uint32_t *packed = malloc(PANEL * inner / 2 * sizeof(uint32_t));
        failed = packed == NULL;
#pragma omp for schedule(static)
        for (int64_t first = 0; first < columns; first += PANEL) {
            int64_t width = columns - first < PANEL ? columns - first : PANEL;
            if (!packed) continue;
            for (int64_t c = 0; c < PANEL; c++)  /* [pair of inner][column] */
                for (int64_t i = 0; i < inner / 2; i++)
                    packed[i * PANEL + c] =
                        c < width ? ((const uint32_t *)(w + (first + c) * inner))[i] : 0;
            for (int64_t row = 0; row < rows; row += STRIP) {
                int64_t height = rows - row < STRIP ? rows - row : STRIP;
                const uint32_t *from[STRIP];
                for (int r = 0; r < STRIP; r++)
                    from[r] = (const uint32_t *)(x + (row + (r < height ? r : 0)) * inner);
                __m512 sum[STRIP][PANEL / LANES];
                for (int r = 0; r < STRIP; r++)
                    for (int c = 0; c < PANEL / LANES; c++) sum[r][c] = _mm512_setzero_ps();
                for (int64_t i = 0; i < inner / 2; i++) {
                    __m512i panel[PANEL / LANES];
                    for (int c = 0; c < PANEL / LANES; c++)
                        panel[c] = _mm512_loadu_si512(packed + i * PANEL + c * LANES);
                    for (int r = 0; r < STRIP; r++) {
                        __m512bh both = (__m512bh)_mm512_set1_epi32(from[r][i]);
                        for (int c = 0; c < PANEL / LANES; c++)
                            sum[r][c] = _mm512_dpbf16_ps(sum[r][c], both, (__m512bh)panel[c]);
                    }
                }
                for (int64_t r = 0; r < height; r++)
                    for (int64_t c = 0; c * LANES < width; c++) {
                        int64_t left = width - c * LANES;
                        __mmask16 mask = left < LANES ? (1u << left) - 1 : 0xffff;
                        _mm512_mask_storeu_ps(out + (row + r) * columns + first + c * LANES, mask,
                                              sum[r][c]);
                    }
            }
        }
        free(packed);
    }
    return failed;
#else
    (void)x, (void)w, (void)rows, (void)columns, (void)inner, (void)out, (void)threads;
    return 2;
#endif
}
