/* solve X U = B */
void trsm_right_upper(int m, int n, double U[restrict n][n], double B[restrict m][n])
{
#pragma scop
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            for (int k = 0; k < j; k++)
                B[i][j] -= B[i][k] * U[k][j];
            B[i][j] /= U[j][j];
        }
#pragma endscop
}
