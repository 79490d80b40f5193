/* Sobel gradient magnitude; indices are clamped to the image */
#include <math.h>
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

void sobel_clamped(int h, int w, double img[h][w], double out[h][w])
{
#pragma scop
    for (int i = 0; i < h; i++)
        for (int j = 0; j < w; j++) {
            double gx = img[MIN(i + 1, h - 1)][MAX(j - 1, 0)] - img[MAX(i - 1, 0)][MAX(j - 1, 0)] +
                        2.0 * (img[MIN(i + 1, h - 1)][j] - img[MAX(i - 1, 0)][j]) +
                        img[MIN(i + 1, h - 1)][MIN(j + 1, w - 1)] -
                        img[MAX(i - 1, 0)][MIN(j + 1, w - 1)];
            double gy = img[MAX(i - 1, 0)][MIN(j + 1, w - 1)] - img[MAX(i - 1, 0)][MAX(j - 1, 0)] +
                        2.0 * (img[i][MIN(j + 1, w - 1)] - img[i][MAX(j - 1, 0)]) +
                        img[MIN(i + 1, h - 1)][MIN(j + 1, w - 1)] -
                        img[MIN(i + 1, h - 1)][MAX(j - 1, 0)];
            out[i][j] = sqrt(gx * gx + gy * gy);
        }
#pragma endscop
}
