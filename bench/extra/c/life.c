/* Conway's game of life */
void life(int tsteps, int n, int A[n][n], int B[n][n])
{
    int s;
#pragma scop
    for (int t = 0; t < tsteps; t++) {
        for (int i = 1; i < n - 1; i++)
            for (int j = 1; j < n - 1; j++) {
                s = A[i - 1][j - 1] + A[i - 1][j] + A[i - 1][j + 1] + A[i][j - 1];
                s += A[i][j + 1] + A[i + 1][j - 1] + A[i + 1][j] + A[i + 1][j + 1];
                B[i][j] = s == 3 ? 1 : (s == 2 ? A[i][j] : 0);
            }
        for (int i = 1; i < n - 1; i++)
            for (int j = 1; j < n - 1; j++) {
                s = B[i - 1][j - 1] + B[i - 1][j] + B[i - 1][j + 1] + B[i][j - 1];
                s += B[i][j + 1] + B[i + 1][j - 1] + B[i + 1][j] + B[i + 1][j + 1];
                A[i][j] = s == 3 ? 1 : (s == 2 ? B[i][j] : 0);
            }
    }
#pragma endscop
}
