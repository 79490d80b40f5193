/* sharpen three channels where they differ enough from their blur */
#include <math.h>

void unsharp_mask(int h, int w, float amount, float threshold, float img[3][h][w],
                  float bx[3][h][w], float by[3][h][w], float out[3][h][w])
{
#pragma scop
    for (int c = 0; c < 3; c++)
        for (int i = 2; i < h - 2; i++)
            for (int j = 0; j < w; j++)
                bx[c][i][j] = 0.0625f * img[c][i - 2][j] + 0.25f * img[c][i - 1][j] +
                              0.375f * img[c][i][j] + 0.25f * img[c][i + 1][j] +
                              0.0625f * img[c][i + 2][j];
    for (int c = 0; c < 3; c++)
        for (int i = 2; i < h - 2; i++)
            for (int j = 2; j < w - 2; j++)
                by[c][i][j] = 0.0625f * bx[c][i][j - 2] + 0.25f * bx[c][i][j - 1] +
                              0.375f * bx[c][i][j] + 0.25f * bx[c][i][j + 1] +
                              0.0625f * bx[c][i][j + 2];
    for (int c = 0; c < 3; c++)
        for (int i = 2; i < h - 2; i++)
            for (int j = 2; j < w - 2; j++) {
                float detail = img[c][i][j] - by[c][i][j];
                out[c][i][j] =
                    fabsf(detail) < threshold ? img[c][i][j] : img[c][i][j] + amount * detail;
            }
#pragma endscop
}
