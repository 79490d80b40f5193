/* softmax of every row */
#include <math.h>

void softmax_rows(int n, int m, double x[n][m], double y[n][m])
{
#pragma scop
    for (int i = 0; i < n; i++) {
        double top = x[i][0];
        for (int j = 1; j < m; j++)
            top = fmax(top, x[i][j]);
        double total = 0.0;
        for (int j = 0; j < m; j++) {
            y[i][j] = exp(x[i][j] - top);
            total += y[i][j];
        }
        for (int j = 0; j < m; j++)
            y[i][j] /= total;
    }
#pragma endscop
}
