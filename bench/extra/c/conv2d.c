/* multi-channel 2-D convolution; parameters are pointers to arrays */
void conv2d(int batch, int cin, int cout, int h, int w, int r,
            float (*restrict x)[cin][h + r - 1][w + r - 1], float (*restrict weight)[cin][r][r],
            float *restrict bias, float (*restrict y)[cout][h][w])
{
#pragma scop
    for (int b = 0; b < batch; b++)
        for (int o = 0; o < cout; o++)
            for (int i = 0; i < h; i++)
                for (int j = 0; j < w; j++) {
                    y[b][o][i][j] = bias[o];
                    for (int c = 0; c < cin; c++)
                        for (int p = 0; p < r; p++)
                            for (int q = 0; q < r; q++)
                                y[b][o][i][j] += weight[o][c][p][q] * x[b][c][i + p][j + q];
                }
#pragma endscop
}
