/* sums over a wedge with rounded bounds and a halved index */
void fraction_bounds(int n, double A[n][n], double y[n], double z[n])
{
#pragma scop
    for (int i = 0; i < n; i++) {
        for (int j = (i + 1) / 2; j < (2 * i + n) / 3; j++) {
            y[i] += A[i][j];
            z[j] -= 0.5 * A[i][j];
        }
        for (int j = n / 2; j < (n + i) / 2; j++)
            z[i / 2] += A[j][i];
    }
#pragma endscop
}
