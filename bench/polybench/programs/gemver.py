"""gemver: A += u1 v1^T + u2 v2^T; x += beta A^T y + z; w += alpha A x."""

from bench.polybench.sizes import size_table

SIZES = size_table("n", (11,), (40,), (120,), (400,), (2000,), (4000,))
OUTPUTS = ("A", "w", "x")
TEMPORARIES = ()
TOLERANCE = 1e-10


def gemver(alpha, beta, A, u1, v1, u2, v2, w, x, y, z):
    n = A.shape[0]
    for i in range(n):
        for j in range(n):
            A[i, j] = A[i, j] + u1[i] * v1[j] + u2[i] * v2[j]
    for i in range(n):
        for j in range(n):
            x[i] = x[i] + beta * A[j, i] * y[j]
    for i in range(n):
        x[i] = x[i] + z[i]
    for i in range(n):
        for j in range(n):
            w[i] = w[i] + alpha * A[i, j] * x[j]


def arguments(sizes, rng):
    n = sizes["n"]
    values = {"alpha": 1.5, "beta": 1.2, "A": rng.random((n, n))}
    return values | {name: rng.random(n) for name in ("u1", "v1", "u2", "v2", "w", "x", "y", "z")}


def numpy_form(alpha, beta, A, u1, v1, u2, v2, w, x, y, z):
    from scipy.linalg import blas

    blas.dger(1.0, v1, u1, a=A.T, overwrite_a=True)
    blas.dger(1.0, v2, u2, a=A.T, overwrite_a=True)
    blas.dgemv(beta, A.T, y, beta=1.0, y=x, overwrite_y=True)
    x += z
    blas.dgemv(alpha, A.T, x, beta=1.0, y=w, trans=1, overwrite_y=True)


def FLOPS(sizes):
    return 10.0 * sizes["n"] ** 2
