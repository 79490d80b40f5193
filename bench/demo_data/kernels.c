/* A matrix product and a five-point stencil, timed.
 *
 *     gcc -O3 -march=native kernels.c -o kernels && ./kernels out.bin
 *
 * Prints the seconds of each kernel and writes the results to a file as doubles.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define N 800  /* rows and columns of the matrices */
#define G 1000 /* points of the grid in each direction */
#define STEPS 100

static double A[N][N], B[N][N], C[N][N];
static double U[G][G], V[G][G];

static void matmul(void)
{
#pragma scop
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            C[i][j] = 0.0;
            for (int k = 0; k < N; k++)
                C[i][j] += A[i][k] * B[k][j];
        }
#pragma endscop
}

static void stencil(void)
{
#pragma scop
    for (int t = 0; t < STEPS; t++) {
        for (int i = 1; i < G - 1; i++)
            for (int j = 1; j < G - 1; j++)
                V[i][j] = 0.2 * (U[i][j] + U[i][j - 1] + U[i][j + 1] + U[i - 1][j] + U[i + 1][j]);
        for (int i = 1; i < G - 1; i++)
            for (int j = 1; j < G - 1; j++)
                U[i][j] = 0.2 * (V[i][j] + V[i][j - 1] + V[i][j + 1] + V[i - 1][j] + V[i + 1][j]);
    }
#pragma endscop
}

static void initialize(void)
{
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            A[i][j] = (i * 7 + j * 3) % 11 / 11.0;
            B[i][j] = (i * 5 + j * 2) % 13 / 13.0;
        }
    for (int i = 0; i < G; i++)
        for (int j = 0; j < G; j++)
            U[i][j] = V[i][j] = (i * 3 + j) % 17 / 17.0;
}

static double now(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

int main(int argc, char **argv)
{
    initialize();
    double start = now();
    matmul();
    double middle = now();
    stencil();
    double end = now();
    printf("matmul %.6f\nstencil %.6f\n", middle - start, end - middle);
    if (argc > 1) {
        FILE *file = fopen(argv[1], "wb");
        if (!file || fwrite(C, sizeof C, 1, file) != 1 || fwrite(U, sizeof U, 1, file) != 1 ||
            fclose(file) != 0) {
            fprintf(stderr, "cannot write %s\n", argv[1]);
            return 1;
        }
    }
    return 0;
}
