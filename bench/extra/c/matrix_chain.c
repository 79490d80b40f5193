/* cheapest order to multiply each interval of a chain of matrices */
#include <stdint.h>

void matrix_chain(int n, int64_t p[n + 1], int64_t cost[n][n])
{
#pragma scop
    for (int i = 0; i < n; i++)
        cost[i][i] = 0;
    for (int s = 1; s < n; s++)
        for (int i = 0; i < n - s; i++) {
            cost[i][i + s] = 1000000000000;
            for (int k = i; k < i + s; k++) {
                int64_t split = cost[i][k] + cost[k + 1][i + s] + p[i] * p[k + 1] * p[i + s + 1];
                cost[i][i + s] = split < cost[i][i + s] ? split : cost[i][i + s];
            }
        }
#pragma endscop
}
