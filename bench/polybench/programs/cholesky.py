"""cholesky: A = L L^T in place; only the lower triangle is read and written."""

import math

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n", (11,), (40,), (120,), (400,), (2000,), (4000,))
OUTPUTS = ("A",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def cholesky(A):
    n = A.shape[0]
    for i in range(n):
        for j in range(i):
            for k in range(j):
                A[i, j] -= A[i, k] * A[j, k]
            A[i, j] /= A[j, j]
        for k in range(i):
            A[i, i] -= A[i, k] * A[i, k]
        A[i, i] = math.sqrt(A[i, i])


def arguments(sizes, rng):
    n = sizes["n"]
    half = rng.random((n, n))
    return {"A": half + half.T + 2.0 * n * np.eye(n)}


def numpy_form(A):
    from scipy.linalg import lapack

    lapack.dpotrf(A.T, lower=0, clean=0, overwrite_a=True)


def FLOPS(sizes):
    return sizes["n"] ** 3 / 3.0
