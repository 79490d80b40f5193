/* twice the resolution by linear interpolation */
void upsample(int n, int m, float A[n][m], float B[2 * n][2 * m])
{
#pragma scop
    for (int i = 0; i < n - 1; i++)
        for (int j = 0; j < m - 1; j++) {
            B[2 * i][2 * j] = A[i][j];
            B[2 * i + 1][2 * j] = 0.5f * (A[i][j] + A[i + 1][j]);
            B[2 * i][2 * j + 1] = 0.5f * (A[i][j] + A[i][j + 1]);
            B[2 * i + 1][2 * j + 1] =
                0.25f * (A[i][j] + A[i + 1][j] + A[i][j + 1] + A[i + 1][j + 1]);
        }
#pragma endscop
}
