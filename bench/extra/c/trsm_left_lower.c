/* solve L X = B; the matrices are linearised */
void trsm_left_lower(int m, int n, const double *L, double *B)
{
#pragma scop
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            for (int k = 0; k < i; k++)
                B[i * n + j] -= L[i * m + k] * B[k * n + j];
            B[i * n + j] /= L[i * m + i];
        }
#pragma endscop
}
