/* reversed and mirrored subscripts */
void flip(int n, double A[n][n], double B[n][n], double C[n][n], double d[n])
{
#pragma scop
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            B[n - 1 - i][j] = A[i][j];
            C[n - 1 - j][n - 1 - i] += A[i][j];
        }
    for (int i = 0; i < (n + 1) / 2; i++) {
        d[i] = 0.0;
        for (int j = 0; j < n; j++)
            d[i] += B[i][j] * B[n - i - 1][n - j - 1];
        d[n - 1 - i] = d[i];
    }
#pragma endscop
}
