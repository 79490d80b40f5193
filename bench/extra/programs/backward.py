"""backward: back substitution U X = B from the last row up, then a smoothing of step minus two."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n m", (9, 7), (12, 10), (60, 80), (200, 240), (900, 1000), (2000, 2200))
OUTPUTS = ("B",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def backward(U, B):
    n, m = B.shape
    for i in range(n - 1, -1, -1):
        for j in range(m - 1, -1, -1):
            for k in range(n - 1, i, -1):
                B[i, j] -= U[i, k] * B[k, j]
            B[i, j] /= U[i, i]
    for i in range(n - 2, 0, -2):
        for j in range(m):
            B[i, j] = 0.5 * (B[i - 1, j] + B[i + 1, j])


def arguments(sizes, rng):
    n, m = sizes["n"], sizes["m"]
    return {"U": rng.random((n, n)) + n * np.eye(n), "B": rng.random((n, m)) + 0.5}


def numpy_form(U, B):
    from scipy.linalg import blas

    blas.dtrsm(1.0, U.T, B.T, side=1, lower=1, overwrite_b=True)
    n = B.shape[0]
    first = 1 + (n - 1) % 2
    B[first : n - 1 : 2] = 0.5 * (B[first - 1 : n - 2 : 2] + B[first + 1 : n : 2])


def FLOPS(sizes):
    return 1.0 * sizes["n"] ** 2 * sizes["m"]
