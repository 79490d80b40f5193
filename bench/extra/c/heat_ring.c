/* heat equation on a ring */
void heat_ring(int tsteps, int n, double *restrict A, double *restrict B)
{
    int t, i;
#pragma scop
    for (t = 0; t < tsteps; ++t) {
        B[0] = 0.25 * A[n - 1] + 0.5 * A[0] + 0.25 * A[1];
        for (i = 1; i <= n - 2; ++i)
            B[i] = 0.25 * A[i - 1] + 0.5 * A[i] + 0.25 * A[i + 1];
        B[n - 1] = 0.25 * A[n - 2] + 0.5 * A[n - 1] + 0.25 * A[0];
        for (i = 0; i <= n - 1; ++i)
            A[i] = B[i];
    }
#pragma endscop
}
