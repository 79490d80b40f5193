/* integer rounds of shifts, masks, products and remainders */
#include <stdint.h>

void bit_mix(int rounds, int n, int32_t x[n], int64_t y[n])
{
#pragma scop
    for (int r = 0; r < rounds; r++) {
        for (int i = 0; i < n; i++) {
            x[i] = ((x[i] << 3) ^ (x[i] >> 5) ^ (7 * i + r)) & 1048575;
            x[i] |= (x[i] / 3) & 255;
        }
        for (int i = 0; i < n; i++) {
            y[i] += x[i];
            y[i] = (y[i] * y[i] + 12345) % 1000003;
            y[i] ^= y[i] >> 2;
        }
    }
#pragma endscop
}
