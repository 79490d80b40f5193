/* prefix sums along every row, then along every column */
void integral_image(int h, int w, double A[h][w], double S[h][w])
{
#pragma scop
    for (int i = 0; i < h; i++) {
        S[i][0] = A[i][0];
        for (int j = 1; j < w; j++)
            S[i][j] = S[i][j - 1] + A[i][j];
    }
    for (int j = 0; j < w; j++)
        for (int i = 1; i < h; i++)
            S[i][j] += S[i - 1][j];
#pragma endscop
}
