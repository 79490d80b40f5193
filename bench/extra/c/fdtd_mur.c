/* 2-D FDTD with two absorbing and two conducting walls */
void fdtd_mur(int tsteps, int n, int m, double hx[n][m], double hy[n][m], double ez[n][m],
              double left[n], double right[n])
{
#pragma scop
    for (int t = 0; t < tsteps; t++) {
        for (int i = 0; i < n; i++)
            for (int j = 0; j < m - 1; j++)
                hx[i][j] -= 0.5 * (ez[i][j + 1] - ez[i][j]);
        for (int i = 0; i < n - 1; i++)
            for (int j = 0; j < m; j++)
                hy[i][j] += 0.5 * (ez[i + 1][j] - ez[i][j]);
        for (int i = 0; i < n; i++) {
            left[i] = ez[i][1];
            right[i] = ez[i][m - 2];
        }
        for (int i = 1; i < n - 1; i++)
            for (int j = 1; j < m - 1; j++)
                ez[i][j] += 0.5 * (hy[i][j] - hy[i - 1][j] - hx[i][j] + hx[i][j - 1]);
        for (int i = 1; i < n - 1; i++) {
            ez[i][0] = left[i] - (ez[i][1] - ez[i][0]) / 3.0;
            ez[i][m - 1] = right[i] - (ez[i][m - 2] - ez[i][m - 1]) / 3.0;
        }
        for (int j = 0; j < m; j++) {
            ez[0][j] = 0.0;
            ez[n - 1][j] = 0.0;
        }
    }
#pragma endscop
}
