/* the largest of each 2x2 window and its mean */
void max_pool(int c, int h, int w, float x[c][2 * h][2 * w], float top[c][h][w],
              float mean[c][h][w])
{
#pragma scop
    for (int k = 0; k < c; k++)
        for (int i = 0; i < h; i++)
            for (int j = 0; j < w; j++) {
                top[k][i][j] = x[k][2 * i][2 * j];
                mean[k][i][j] = 0.0f;
                for (int p = 0; p < 2; p++)
                    for (int q = 0; q < 2; q++) {
                        top[k][i][j] = top[k][i][j] > x[k][2 * i + p][2 * j + q]
                                           ? top[k][i][j]
                                           : x[k][2 * i + p][2 * j + q];
                        mean[k][i][j] += 0.25f * x[k][2 * i + p][2 * j + q];
                    }
            }
#pragma endscop
}
