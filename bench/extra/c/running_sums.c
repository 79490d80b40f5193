/* prefix sums along rows, suffix sums along columns; linearised */
void running_sums(int h, int w, double *restrict A, double *restrict B, double *restrict below)
{
    double total;
#pragma scop
    for (int i = 0; i < h; i++) {
        total = 0.0;
        for (int j = 0; j < w; j++) {
            total += A[w * i + j];
            A[w * i + j] = total;
        }
    }
    for (int j = 0; j < w; j++)
        below[j] = 0.0;
    for (int i = h - 1; i >= 0; i--)
        for (int j = 0; j < w; j++) {
            below[j] += B[j + i * w];
            B[j + i * w] = below[j];
        }
#pragma endscop
}
