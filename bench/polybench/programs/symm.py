"""symm: C := alpha A B + beta C, A symmetric and given by its lower triangle."""

from bench.polybench.sizes import size_table

SIZES = size_table("m n", (7, 9), (20, 30), (60, 80), (200, 240), (1000, 1200), (2000, 2600))
OUTPUTS = ("C",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def symm(alpha, beta, C, A, B):
    m, n = C.shape
    for i in range(m):
        for j in range(n):
            acc = 0.0
            for k in range(i):
                C[k, j] += alpha * B[i, j] * A[i, k]
                acc += B[k, j] * A[i, k]
            C[i, j] = beta * C[i, j] + alpha * B[i, j] * A[i, i] + alpha * acc


def arguments(sizes, rng):
    m, n = sizes["m"], sizes["n"]
    return {
        "alpha": 1.5,
        "beta": 1.2,
        "C": rng.random((m, n)),
        "A": rng.random((m, m)),
        "B": rng.random((m, n)),
    }


def numpy_form(alpha, beta, C, A, B):
    from scipy.linalg import blas

    blas.dsymm(alpha, A.T, B.T, beta=beta, c=C.T, side=1, lower=0, overwrite_c=True)


def FLOPS(sizes):
    m, n = sizes["m"], sizes["n"]
    return 2.5 * m * (m - 1) * n + 6.0 * m * n
