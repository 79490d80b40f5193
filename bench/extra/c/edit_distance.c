/* Levenshtein distance of every pair of prefixes */
#define SMALLER(x, y) ((x) < (y) ? (x) : (y))

void edit_distance(int n, int m, int *a, int *b, int (*D)[m + 1])
{
#pragma scop
    for (int i = 0; i < n + 1; i++)
        D[i][0] = i;
    for (int j = 0; j < m + 1; j++)
        D[0][j] = j;
    for (int i = 1; i < n + 1; i++)
        for (int j = 1; j < m + 1; j++) {
            int change = D[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
            int gap = SMALLER(D[i - 1][j], D[i][j - 1]) + 1;
            D[i][j] = SMALLER(change, gap);
        }
#pragma endscop
}
