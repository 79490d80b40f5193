/* every row to mean 0 and variance 1, then scaled and shifted */
#include <math.h>

void layer_norm(int n, int m, float eps, float x[n][m], float gain[m], float shift[m],
                float y[n][m])
{
    float mean, var, scale;
#pragma scop
    for (int i = 0; i < n; i++) {
        mean = 0.0f;
        for (int j = 0; j < m; j++)
            mean += x[i][j];
        mean /= m;
        var = 0.0f;
        for (int j = 0; j < m; j++)
            var += (x[i][j] - mean) * (x[i][j] - mean);
        var /= m;
        scale = 1.0f / sqrtf(var + eps);
        for (int j = 0; j < m; j++)
            y[i][j] = (x[i][j] - mean) * scale * gain[j] + shift[j];
    }
#pragma endscop
}
