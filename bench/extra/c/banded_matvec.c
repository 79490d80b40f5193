/* y = A x, A stored by diagonals */
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

void banded_matvec(int n, int k, double A[n][2 * k + 1], double x[n], double y[n])
{
#pragma scop
    for (int i = 0; i < n; i++) {
        y[i] = 0.0;
        for (int j = MAX(0, i - k); j < MIN(n, i + k + 1); j++)
            y[i] += A[i][j - i + k] * x[j];
    }
#pragma endscop
}
