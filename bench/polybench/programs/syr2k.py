"""syr2k: C := alpha (A B^T + B A^T) + beta C, lower triangle of C."""

from bench.polybench.sizes import size_table

SIZES = size_table("m n", (7, 9), (20, 30), (60, 80), (200, 240), (1000, 1200), (2000, 2600))
OUTPUTS = ("C",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def syr2k(alpha, beta, C, A, B):
    n, m = A.shape
    for i in range(n):
        for j in range(i + 1):
            C[i, j] *= beta
        for k in range(m):
            for j in range(i + 1):
                C[i, j] += A[j, k] * alpha * B[i, k] + B[j, k] * alpha * A[i, k]


def arguments(sizes, rng):
    m, n = sizes["m"], sizes["n"]
    return {
        "alpha": 1.5,
        "beta": 1.2,
        "C": rng.random((n, n)),
        "A": rng.random((n, m)),
        "B": rng.random((n, m)),
    }


def numpy_form(alpha, beta, C, A, B):
    from scipy.linalg import blas

    blas.dsyr2k(alpha, A.T, B.T, beta=beta, c=C.T, trans=1, lower=0, overwrite_c=True)


def FLOPS(sizes):
    m, n = sizes["m"], sizes["n"]
    return 3.0 * m * n * (n + 1) + 0.5 * n * (n + 1)
