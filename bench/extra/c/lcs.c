/* longest common subsequence of every pair of prefixes */
void lcs(int n, int m, int a[n], int b[m], int table[n + 1][m + 1])
{
#pragma scop
    for (int i = 0; i <= n; i++)
        table[i][0] = 0;
    for (int j = 0; j <= m; j++)
        table[0][j] = 0;
    for (int i = 1; i <= n; i++)
        for (int j = 1; j <= m; j++)
            table[i][j] = a[i - 1] == b[j - 1] ? table[i - 1][j - 1] + 1
                          : table[i - 1][j] >= table[i][j - 1] ? table[i - 1][j]
                                                               : table[i][j - 1];
#pragma endscop
}
