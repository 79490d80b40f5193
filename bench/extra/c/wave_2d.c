/* the wave equation in the plane; parameters are pointers to rows */
void wave_2d(int tsteps, int n, double c, double (*u)[n], double (*v)[n])
{
#pragma scop
    for (int t = 0; t < tsteps; t++) {
        for (int i = 1; i < n - 1; i++)
            for (int j = 1; j < n - 1; j++)
                u[i][j] = 2.0 * v[i][j] - u[i][j] +
                          c * (v[i + 1][j] + v[i - 1][j] + v[i][j + 1] + v[i][j - 1] -
                               4.0 * v[i][j]);
        for (int i = 1; i < n - 1; i++)
            for (int j = 1; j < n - 1; j++)
                v[i][j] = 2.0 * u[i][j] - v[i][j] +
                          c * (u[i + 1][j] + u[i - 1][j] + u[i][j + 1] + u[i][j - 1] -
                               4.0 * u[i][j]);
    }
#pragma endscop
}
