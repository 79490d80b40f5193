/* back substitution from the last row up, then a smoothing of step minus two */
void backward(int n, int m, double U[n][n], double B[n][m])
{
#pragma scop
    for (int i = n - 1; i >= 0; i--)
        for (int j = m - 1; j > -1; --j) {
            for (int k = n - 1; k > i; k -= 1)
                B[i][j] -= U[i][k] * B[k][j];
            B[i][j] /= U[i][i];
        }
    for (int i = n - 2; i > 0; i -= 2)
        for (int j = 0; j < m; j++)
            B[i][j] = 0.5 * (B[i - 1][j] + B[i + 1][j]);
#pragma endscop
}
