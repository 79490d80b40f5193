"""krylov: the vectors A^s v, one row of V for each power s."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("s n", (4, 9), (3, 14), (8, 120), (10, 400), (20, 2500), (20, 5000))
OUTPUTS = ("V",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def krylov(A, V):
    s, n = V.shape
    for p in range(1, s):
        for i in range(n):
            V[p, i] = 0.0
            for j in range(n):
                V[p, i] += A[i, j] * V[p - 1, j]


def arguments(sizes, rng):
    s, n = sizes["s"], sizes["n"]
    return {"A": 2.0 * rng.random((n, n)) / n, "V": rng.random((s, n)) + 0.5}


def numpy_form(A, V):
    for p in range(1, V.shape[0]):
        np.dot(A, V[p - 1], out=V[p])


def FLOPS(sizes):
    return 2.0 * (sizes["s"] - 1) * sizes["n"] ** 2
