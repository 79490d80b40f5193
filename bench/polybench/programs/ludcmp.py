"""ludcmp: solve A x = b by LU factors (in place, a scalar accumulator) and two substitutions."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n", (11,), (40,), (120,), (400,), (2000,), (4000,))
OUTPUTS = ("A", "x")
TEMPORARIES = ("y",)
TOLERANCE = 1e-10


def ludcmp(A, b, x, y):
    n = A.shape[0]
    for i in range(n):
        for j in range(i):
            w = A[i, j]
            for k in range(j):
                w -= A[i, k] * A[k, j]
            A[i, j] = w / A[j, j]
        for j in range(i, n):
            w = A[i, j]
            for k in range(i):
                w -= A[i, k] * A[k, j]
            A[i, j] = w
    for i in range(n):
        w = b[i]
        for j in range(i):
            w -= A[i, j] * y[j]
        y[i] = w
    for i in range(n - 1, -1, -1):
        w = y[i]
        for j in range(i + 1, n):
            w -= A[i, j] * x[j]
        x[i] = w / A[i, i]


def arguments(sizes, rng):
    n = sizes["n"]
    return {
        "A": rng.random((n, n)) + n * np.eye(n),
        "b": rng.random(n) + 0.5,
        "x": rng.random(n),
        "y": rng.random(n),
    }


def numpy_form(A, b, x, y):
    """LAPACK pivots, but never does on these diagonally dominant columns."""
    from scipy.linalg import lapack

    factors, pivots, _ = lapack.dgetrf(np.asfortranarray(A), overwrite_a=True)
    if not np.array_equal(pivots, np.arange(len(pivots))):
        raise ValueError("LAPACK exchanged rows: not the same factors")
    A[:] = factors
    x[:] = lapack.dgetrs(factors, pivots, b)[0]


def FLOPS(sizes):
    return 2.0 * sizes["n"] ** 3 / 3.0 + 2.0 * sizes["n"] ** 2
