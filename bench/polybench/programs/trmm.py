"""trmm: B := alpha A^T B in place, A unit lower triangular."""

from bench.polybench.sizes import size_table

SIZES = size_table("m n", (7, 9), (20, 30), (60, 80), (200, 240), (1000, 1200), (2000, 2600))
OUTPUTS = ("B",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def trmm(alpha, A, B):
    m, n = B.shape
    for i in range(m):
        for j in range(n):
            for k in range(i + 1, m):
                B[i, j] += A[k, i] * B[k, j]
            B[i, j] = alpha * B[i, j]


def arguments(sizes, rng):
    m, n = sizes["m"], sizes["n"]
    return {"alpha": 1.5, "A": rng.random((m, m)), "B": rng.random((m, n))}


def numpy_form(alpha, A, B):
    from scipy.linalg import blas

    blas.dtrmm(alpha, A.T, B.T, side=1, lower=0, trans_a=1, diag=1, overwrite_b=True)


def FLOPS(sizes):
    m, n = sizes["m"], sizes["n"]
    return 1.0 * m * (m - 1) * n + m * n
