/* 7-point Jacobi steps with variable coefficients on linearised arrays */
void jacobi_3d_linear(int tsteps, int n, const double *K, double *A, double *B)
{
#pragma scop
    for (int t = 0; t < tsteps; t++) {
        for (int i = 1; i < n - 1; i++)
            for (int j = 1; j < n - 1; j++)
                for (int k = 1; k < n - 1; k++)
                    B[i * n * n + j * n + k] =
                        A[i * n * n + j * n + k] +
                        K[i * n * n + j * n + k] *
                            (A[(i - 1) * n * n + j * n + k] + A[(i + 1) * n * n + j * n + k] +
                             A[i * n * n + (j - 1) * n + k] + A[i * n * n + (j + 1) * n + k] +
                             A[i * n * n + j * n + k - 1] + A[i * n * n + j * n + k + 1] -
                             6.0 * A[i * n * n + j * n + k]);
        for (int i = 1; i < n - 1; i++)
            for (int j = 1; j < n - 1; j++)
                for (int k = 1; k < n - 1; k++)
                    A[i * n * n + j * n + k] = B[i * n * n + j * n + k];
    }
#pragma endscop
}
