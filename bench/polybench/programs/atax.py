"""atax: y := A^T (A x)."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("m n", (7, 9), (38, 42), (116, 124), (390, 410), (1900, 2100), (1800, 2200))
OUTPUTS = ("y",)
TEMPORARIES = ("tmp",)
TOLERANCE = 1e-10


def atax(A, x, y, tmp):
    m, n = A.shape
    for i in range(n):
        y[i] = 0.0
    for i in range(m):
        tmp[i] = 0.0
        for j in range(n):
            tmp[i] += A[i, j] * x[j]
        for j in range(n):
            y[j] += A[i, j] * tmp[i]


def arguments(sizes, rng):
    m, n = sizes["m"], sizes["n"]
    return {
        "A": rng.random((m, n)),
        "x": rng.random(n),
        "y": rng.random(n),
        "tmp": rng.random(m),
    }


def numpy_form(A, x, y, tmp):
    np.dot(A, x, out=tmp)
    np.dot(A.T, tmp, out=y)


def FLOPS(sizes):
    return 4.0 * sizes["m"] * sizes["n"]
