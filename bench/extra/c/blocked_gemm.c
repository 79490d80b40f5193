/* C += A B, already blocked by hand */
void blocked_gemm(int ni, int nj, int nk, double C[ni][nj], double A[ni][nk], double B[nk][nj])
{
#pragma scop
    for (int ii = 0; ii < ni; ii += 16)
        for (int kk = 0; kk < nk; kk += 16)
            for (int i = ii; i < (ii + 16 < ni ? ii + 16 : ni); i++)
                for (int k = kk; k < (kk + 16 < nk ? kk + 16 : nk); k++)
                    for (int j = 0; j < nj; j++)
                        C[i][j] += A[i][k] * B[k][j];
#pragma endscop
}
