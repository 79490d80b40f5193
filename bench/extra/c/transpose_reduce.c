/* T = A^T with row sums, column maxima and the grand total */
double transpose_reduce(int n, int m, double A[n][m], double T[m][n], double row[n],
                        double col[m])
{
    double total;
#pragma scop
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++)
            T[j][i] = A[i][j];
    for (int j = 0; j < m; j++)
        col[j] = A[0][j];
    for (int i = 0; i < n; i++) {
        row[i] = 0.0;
        for (int j = 0; j < m; j++) {
            row[i] += A[i][j];
            col[j] = A[i][j] > col[j] ? A[i][j] : col[j];
        }
    }
    total = 0.0;
    for (int i = 0; i < n; i++)
        total += row[i];
#pragma endscop
    return total;
}
