/* C[a][b][c][d] := sum over e, f of A[a][e][b][f] B[d][f][c][e] */
void contraction(int na, int nb, int nc, int nd, int ne, int nf, double C[na][nb][nc][nd],
                 double A[na][ne][nb][nf], double B[nd][nf][nc][ne])
{
#pragma scop
    for (int a = 0; a < na; a++)
        for (int b = 0; b < nb; b++)
            for (int c = 0; c < nc; c++)
                for (int d = 0; d < nd; d++) {
                    C[a][b][c][d] = 0.0;
                    for (int e = 0; e < ne; e++)
                        for (int f = 0; f < nf; f++)
                            C[a][b][c][d] += A[a][e][b][f] * B[d][f][c][e];
                }
#pragma endscop
}
