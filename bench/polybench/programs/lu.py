"""lu: A = L U in place, without pivoting, unit lower L."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n", (11,), (40,), (120,), (400,), (2000,), (4000,))
OUTPUTS = ("A",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def lu(A):
    n = A.shape[0]
    for i in range(n):
        for j in range(i):
            for k in range(j):
                A[i, j] -= A[i, k] * A[k, j]
            A[i, j] /= A[j, j]
        for j in range(i, n):
            for k in range(i):
                A[i, j] -= A[i, k] * A[k, j]


def arguments(sizes, rng):
    n = sizes["n"]
    return {"A": rng.random((n, n)) + n * np.eye(n)}


def numpy_form(A):
    """LAPACK pivots, but never does on these diagonally dominant columns."""
    from scipy.linalg import lapack

    factors, pivots, _ = lapack.dgetrf(np.asfortranarray(A), overwrite_a=True)
    if not np.array_equal(pivots, np.arange(len(pivots))):
        raise ValueError("LAPACK exchanged rows: not the same factors")
    A[:] = factors


def FLOPS(sizes):
    return 2.0 * sizes["n"] ** 3 / 3.0
