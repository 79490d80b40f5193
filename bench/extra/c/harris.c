/* Harris corner response */
void harris(int h, int w, float img[h][w], float ix[h][w], float iy[h][w], float out[h][w])
{
#pragma scop
    for (int i = 1; i < h - 1; i++)
        for (int j = 1; j < w - 1; j++) {
            ix[i][j] = (img[i + 1][j - 1] - img[i - 1][j - 1] +
                        2.0f * (img[i + 1][j] - img[i - 1][j]) + img[i + 1][j + 1] -
                        img[i - 1][j + 1]) /
                       12.0f;
            iy[i][j] = (img[i - 1][j + 1] - img[i - 1][j - 1] +
                        2.0f * (img[i][j + 1] - img[i][j - 1]) + img[i + 1][j + 1] -
                        img[i + 1][j - 1]) /
                       12.0f;
        }
    for (int i = 2; i < h - 2; i++)
        for (int j = 2; j < w - 2; j++) {
            float sxx = 0.0f, syy = 0.0f, sxy = 0.0f;
            for (int r = -1; r <= 1; r++)
                for (int s = -1; s <= 1; s++) {
                    sxx += ix[i + r][j + s] * ix[i + r][j + s];
                    syy += iy[i + r][j + s] * iy[i + r][j + s];
                    sxy += ix[i + r][j + s] * iy[i + r][j + s];
                }
            float trace = sxx + syy;
            out[i][j] = sxx * syy - sxy * sxy - 0.04f * trace * trace;
        }
#pragma endscop
}
