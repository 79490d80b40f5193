"""mvt: x1 += A y1 and x2 += A^T y2."""

from bench.polybench.sizes import size_table

SIZES = size_table("n", (11,), (40,), (120,), (400,), (2000,), (4000,))
OUTPUTS = ("x1", "x2")
TEMPORARIES = ()
TOLERANCE = 1e-10


def mvt(x1, x2, y1, y2, A):
    n = A.shape[0]
    for i in range(n):
        for j in range(n):
            x1[i] = x1[i] + A[i, j] * y1[j]
    for i in range(n):
        for j in range(n):
            x2[i] = x2[i] + A[j, i] * y2[j]


def arguments(sizes, rng):
    n = sizes["n"]
    return {name: rng.random(n) for name in ("x1", "x2", "y1", "y2")} | {"A": rng.random((n, n))}


def numpy_form(x1, x2, y1, y2, A):
    from scipy.linalg import blas

    blas.dgemv(1.0, A.T, y1, beta=1.0, y=x1, trans=1, overwrite_y=True)
    blas.dgemv(1.0, A.T, y2, beta=1.0, y=x2, overwrite_y=True)


def FLOPS(sizes):
    return 4.0 * sizes["n"] ** 2
