/* first-order transport; the sign of the velocity selects the neighbour */
void upwind(int tsteps, int n, double dt, double vx[n][n], double vy[n][n], double q[n][n],
            double r[n][n])
{
#pragma scop
    for (int t = 0; t < tsteps; t++) {
        for (int i = 1; i < n - 1; i++)
            for (int j = 1; j < n - 1; j++) {
                double gx = vx[i][j] > 0.0 ? q[i][j] - q[i - 1][j] : q[i + 1][j] - q[i][j];
                double gy = vy[i][j] > 0.0 ? q[i][j] - q[i][j - 1] : q[i][j + 1] - q[i][j];
                r[i][j] = q[i][j] - dt * (vx[i][j] * gx + vy[i][j] * gy);
            }
        for (int i = 1; i < n - 1; i++)
            for (int j = 1; j < n - 1; j++)
                q[i][j] = r[i][j];
    }
#pragma endscop
}
