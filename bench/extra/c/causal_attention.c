/* softmax(Q K^T / sqrt(d)) V over earlier positions only */
#include <math.h>

void causal_attention(int n, int d, float scale, float Q[n][d], float K[n][d], float V[n][d],
                      float S[n][n], float out[n][d])
{
#pragma scop
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            S[i][j] = 0.0f;
            for (int k = 0; k < d; k++)
                S[i][j] += Q[i][k] * K[j][k];
            S[i][j] *= scale;
        }
    for (int i = 0; i < n; i++) {
        float top = S[i][0];
        for (int j = 1; j <= i; j++)
            top = fmaxf(top, S[i][j]);
        float total = 0.0f;
        for (int j = 0; j <= i; j++) {
            S[i][j] = expf(S[i][j] - top);
            total += S[i][j];
        }
        for (int j = 0; j <= i; j++)
            S[i][j] /= total;
    }
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < d; k++)
            out[i][k] = 0.0f;
        for (int j = 0; j <= i; j++)
            for (int k = 0; k < d; k++)
                out[i][k] += S[i][j] * V[j][k];
    }
#pragma endscop
}
