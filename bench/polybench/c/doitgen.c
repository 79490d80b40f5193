/* A[r][q][p] := sum over s of A[r][q][s] C4[s][p] */
void doitgen(int nr, int nq, int np, double A[nr][nq][np], double C4[np][np], double acc[np])
{
#pragma scop
    for (int r = 0; r < nr; r++)
        for (int q = 0; q < nq; q++) {
            for (int p = 0; p < np; p++) {
                acc[p] = 0.0;
                for (int s = 0; s < np; s++)
                    acc[p] += A[r][q][s] * C4[s][p];
            }
            for (int p = 0; p < np; p++)
                A[r][q][p] = acc[p];
        }
#pragma endscop
}
