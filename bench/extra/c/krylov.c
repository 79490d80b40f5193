/* the vectors A^s v */
void krylov(int s, int n, double A[n][n], double V[s][n])
{
#pragma scop
    for (int p = 1; p < s; p++)
        for (int i = 0; i < n; i++) {
            V[p][i] = 0.0;
            for (int j = 0; j < n; j++)
                V[p][i] += A[i][j] * V[p - 1][j];
        }
#pragma endscop
}
