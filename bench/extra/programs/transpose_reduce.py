"""transpose-reduce: T = A^T with row sums, column maxima and the returned grand total."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n m", (7, 9), (12, 15), (120, 160), (500, 600), (3000, 3500), (6000, 7000))
OUTPUTS = ("T", "row", "col")
TEMPORARIES = ()
TOLERANCE = 1e-10


def transpose_reduce(A, T, row, col):
    n, m = A.shape
    for i in range(n):
        for j in range(m):
            T[j, i] = A[i, j]
    for j in range(m):
        col[j] = A[0, j]
    for i in range(n):
        row[i] = 0.0
        for j in range(m):
            row[i] += A[i, j]
            col[j] = max(col[j], A[i, j])
    total = 0.0
    for i in range(n):
        total += row[i]
    return total


def arguments(sizes, rng):
    n, m = sizes["n"], sizes["m"]
    return {
        "A": rng.random((n, m)),
        "T": rng.random((m, n)),
        "row": rng.random(n),
        "col": rng.random(m),
    }


def numpy_form(A, T, row, col):
    T[:] = A.T
    np.sum(A, axis=1, out=row)
    np.max(A, axis=0, out=col)
    return row.sum()


def FLOPS(sizes):
    return 3.0 * sizes["n"] * sizes["m"]
