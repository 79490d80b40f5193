/* red-black Gauss-Seidel with loops of step two */
void red_black_strided(int tsteps, int n, double u[n][n], double rhs[n][n])
{
#pragma scop
    for (int t = 0; t < tsteps; t++)
        for (int c = 0; c < 2; c++)
            for (int i = 1; i < n - 1; i++)
                for (int j = 1 + (i + c + 1) % 2; j < n - 1; j += 2)
                    u[i][j] = 0.25 * (u[i - 1][j] + u[i + 1][j] + u[i][j - 1] + u[i][j + 1] -
                                      rhs[i][j]);
#pragma endscop
}
