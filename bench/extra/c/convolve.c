/* full 1-D convolution written as a scatter */
void convolve(int n, int m, double x[n], double h[m], double y[n + m - 1])
{
#pragma scop
    for (int i = 0; i < n + m - 1; i++)
        y[i] = 0.0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++)
            y[i + j] += x[i] * h[j];
#pragma endscop
}
