"""frobenius: the returned norm of A - B and nothing else written."""

import math

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n m", (7, 9), (12, 15), (120, 160), (500, 600), (4000, 5000), (8000, 9000))
OUTPUTS = ()
TEMPORARIES = ()
TOLERANCE = 1e-9


def frobenius(A, B):
    n, m = A.shape
    s = 0.0
    for i in range(n):
        for j in range(m):
            s += (A[i, j] - B[i, j]) * (A[i, j] - B[i, j])
    s = math.sqrt(s)
    return s


def arguments(sizes, rng):
    shape = sizes["n"], sizes["m"]
    return {"A": rng.random(shape), "B": rng.random(shape)}


def numpy_form(A, B):
    return float(np.linalg.norm(A - B))


def FLOPS(sizes):
    return 3.0 * sizes["n"] * sizes["m"]
