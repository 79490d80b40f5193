/* one 3x3 filter per channel, stride two, clipped */
#include <math.h>

void depthwise_conv(int c, int h, int w, float x[c][2 * h + 1][2 * w + 1], float weight[c][3][3],
                    float y[c][h][w])
{
#pragma scop
    for (int k = 0; k < c; k++)
        for (int i = 0; i < h; i++)
            for (int j = 0; j < w; j++) {
                float acc = 0.0f;
                for (int p = 0; p < 3; p++)
                    for (int q = 0; q < 3; q++)
                        acc += weight[k][p][q] * x[k][2 * i + p][2 * j + q];
                y[k][i][j] = fminf(fmaxf(acc, 0.0f), 6.0f);
            }
#pragma endscop
}
