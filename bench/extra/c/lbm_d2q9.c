/* lattice Boltzmann, nine velocities; scalars are declared in the region */
void lbm_d2q9(int tsteps, int n, int m, double omega, double f[2][9][n][m])
{
#pragma scop
    for (int t = 0; t < tsteps; t++)
        for (int i = 1; i < n - 1; i++)
            for (int j = 1; j < m - 1; j++) {
                double f0 = f[t % 2][0][i][j];
                double f1 = f[t % 2][1][i - 1][j];
                double f2 = f[t % 2][2][i][j - 1];
                double f3 = f[t % 2][3][i + 1][j];
                double f4 = f[t % 2][4][i][j + 1];
                double f5 = f[t % 2][5][i - 1][j - 1];
                double f6 = f[t % 2][6][i + 1][j - 1];
                double f7 = f[t % 2][7][i + 1][j + 1];
                double f8 = f[t % 2][8][i - 1][j + 1];
                double rho = f0 + f1 + f2 + f3 + f4 + f5 + f6 + f7 + f8;
                double ux = (f1 + f5 + f8 - f3 - f6 - f7) / rho;
                double uy = (f2 + f5 + f6 - f4 - f7 - f8) / rho;
                double base = 1.0 - 1.5 * (ux * ux + uy * uy);
                double side = rho / 9.0, edge = rho / 36.0;
                double up = ux + uy, down = ux - uy;
                f[(t + 1) % 2][0][i][j] = f0 + omega * (4.0 * side * base - f0);
                f[(t + 1) % 2][1][i][j] =
                    f1 + omega * (side * (base + 3.0 * ux + 4.5 * ux * ux) - f1);
                f[(t + 1) % 2][2][i][j] =
                    f2 + omega * (side * (base + 3.0 * uy + 4.5 * uy * uy) - f2);
                f[(t + 1) % 2][3][i][j] =
                    f3 + omega * (side * (base - 3.0 * ux + 4.5 * ux * ux) - f3);
                f[(t + 1) % 2][4][i][j] =
                    f4 + omega * (side * (base - 3.0 * uy + 4.5 * uy * uy) - f4);
                f[(t + 1) % 2][5][i][j] =
                    f5 + omega * (edge * (base + 3.0 * up + 4.5 * up * up) - f5);
                f[(t + 1) % 2][6][i][j] =
                    f6 + omega * (edge * (base - 3.0 * down + 4.5 * down * down) - f6);
                f[(t + 1) % 2][7][i][j] =
                    f7 + omega * (edge * (base - 3.0 * up + 4.5 * up * up) - f7);
                f[(t + 1) % 2][8][i][j] =
                    f8 + omega * (edge * (base + 3.0 * down + 4.5 * down * down) - f8);
            }
#pragma endscop
}
