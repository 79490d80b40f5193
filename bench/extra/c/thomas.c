/* many tridiagonal systems, one per column */
void thomas(int n, int m, double lower[n][m], double diag[n][m], double upper[n][m],
            double x[n][m], double ratio[n][m])
{
#pragma scop
    for (int j = 0; j < m; j++) {
        ratio[0][j] = upper[0][j] / diag[0][j];
        x[0][j] /= diag[0][j];
        for (int i = 1; i < n; i++) {
            const double pivot = diag[i][j] - lower[i][j] * ratio[i - 1][j];
            ratio[i][j] = upper[i][j] / pivot;
            x[i][j] = (x[i][j] - lower[i][j] * x[i - 1][j]) / pivot;
        }
        for (int i = n - 2; i >= 0; i--)
            x[i][j] -= ratio[i][j] * x[i + 1][j];
    }
#pragma endscop
}
