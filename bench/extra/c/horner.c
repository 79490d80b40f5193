/* one polynomial at many points by Horner's rule */
void horner(int d, int n, const double *restrict c, const double *restrict x, double *restrict y)
{
#pragma scop
    for (int i = 0; i < n; i++) {
        y[i] = c[d - 1];
        for (int k = d - 2; k >= 0; k--)
            y[i] = y[i] * x[i] + c[k];
    }
#pragma endscop
}
