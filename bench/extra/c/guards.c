/* updates under disjunctions, negations and else branches of affine conditions */
void guards(int n, int m, double A[n][m], double B[n][m])
{
#pragma scop
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++) {
            if (i >= j || i % 2 == 0)
                A[i][j] = 0.5 * A[i][j] + B[i][j];
            else
                A[i][j] *= 3.0;
            if (!(i == j || i + j == n - 1) && j < m - 2) {
                B[i][j] -= A[i][j];
            } else if (i != 0) {
                B[i][j] = A[i - 1][j];
            }
        }
    for (int i = 1; i < n; i++)
        for (int j = 0; j < m; j++)
            if ((2 * i + j) % 3 != 1 && 2 * j <= 3 * i) {
                A[i][j] /= 2.0;
                if (j > 0)
                    A[i][j] += A[i - 1][j - 1];
            }
#pragma endscop
}
