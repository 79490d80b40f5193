/* the wave equation in space; the time level is an index taken modulo two */
void wave_3d(int tsteps, int n, double c, double u[2][n][n][n])
{
#pragma scop
    for (int t = 0; t < tsteps; t++)
        for (int i = 1; i < n - 1; i++)
            for (int j = 1; j < n - 1; j++)
                for (int k = 1; k < n - 1; k++)
                    u[(t + 1) % 2][i][j][k] =
                        2.0 * u[t % 2][i][j][k] - u[(t + 1) % 2][i][j][k] +
                        c * (u[t % 2][i + 1][j][k] + u[t % 2][i - 1][j][k] +
                             u[t % 2][i][j + 1][k] + u[t % 2][i][j - 1][k] +
                             u[t % 2][i][j][k + 1] + u[t % 2][i][j][k - 1] -
                             6.0 * u[t % 2][i][j][k]);
#pragma endscop
}
