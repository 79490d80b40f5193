/* 3x3 box blur in two passes */
void blur_two_stage(int h, int w, float img[restrict h][w], float tmp[restrict h][w],
                    float out[restrict h][w])
{
#pragma scop
    for (int i = 0; i < h; i++)
        for (int j = 1; j < w - 1; j++)
            tmp[i][j] = (img[i][j - 1] + img[i][j] + img[i][j + 1]) / 3.0f;
    for (int i = 1; i < h - 1; i++)
        for (int j = 1; j < w - 1; j++)
            out[i][j] = (tmp[i - 1][j] + tmp[i][j] + tmp[i + 1][j]) / 3.0f;
#pragma endscop
}
