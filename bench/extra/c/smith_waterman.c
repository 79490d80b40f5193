/* local alignment scores with affine gaps */
#define LARGER(x, y) ((x) > (y) ? (x) : (y))

void smith_waterman(int n, int m, const int a[n], const int b[m], int H[n + 1][m + 1],
                    int E[n + 1][m + 1], int F[n + 1][m + 1])
{
#pragma scop
    for (int i = 1; i <= n; i++)
        for (int j = 1; j <= m; j++) {
            E[i][j] = LARGER(E[i][j - 1] - 1, H[i][j - 1] - 3);
            F[i][j] = LARGER(F[i - 1][j] - 1, H[i - 1][j] - 3);
            int match = H[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 2 : -1);
            int gap = LARGER(E[i][j], F[i][j]);
            int best = LARGER(0, match);
            H[i][j] = LARGER(best, gap);
        }
#pragma endscop
}
