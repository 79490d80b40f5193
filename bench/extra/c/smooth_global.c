/* repeated 3x3 smoothing; weights and buffer are file-scope arrays */
#define LIMIT 2000

static const double weight[3][3] = {
    {0.0625, 0.125, 0.0625}, {0.125, 0.25, 0.125}, {0.0625, 0.125, 0.0625}};
static double buffer[LIMIT][LIMIT];

void smooth_global(int tsteps, int n, double A[n][n])
{
#pragma scop
    for (int t = 0; t < tsteps; t++) {
        for (int i = 1; i < n - 1; i++)
            for (int j = 1; j < n - 1; j++) {
                buffer[i][j] = 0.0;
                for (int p = 0; p < 3; p++)
                    for (int q = 0; q < 3; q++)
                        buffer[i][j] += weight[p][q] * A[i + p - 1][j + q - 1];
            }
        for (int i = 1; i < n - 1; i++)
            for (int j = 1; j < n - 1; j++)
                A[i][j] = buffer[i][j];
    }
#pragma endscop
}
