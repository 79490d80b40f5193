/* y = relu(x W + b) for a batch of small matrices; linearised three-dimensional arrays */
void batched_dense(int batch, int m, int n, int k, float *x, float *weight, float *bias, float *y)
{
#pragma scop
    for (int b = 0; b < batch; b++)
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++) {
                y[(b * m + i) * n + j] = bias[j];
                for (int p = 0; p < k; p++)
                    y[(b * m + i) * n + j] +=
                        x[(b * m + i) * k + p] * weight[(b * k + p) * n + j];
                y[(b * m + i) * n + j] =
                    y[(b * m + i) * n + j] > 0.0f ? y[(b * m + i) * n + j] : 0.0f;
            }
#pragma endscop
}
