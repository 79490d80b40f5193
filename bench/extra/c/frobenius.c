/* the norm of A - B */
#include <math.h>

double frobenius(int n, int m, const double A[n][m], const double B[n][m])
{
    double s = 0.0;
#pragma scop
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++)
            s += (A[i][j] - B[i][j]) * (A[i][j] - B[i][j]);
    s = sqrt(s);
#pragma endscop
    return s;
}
