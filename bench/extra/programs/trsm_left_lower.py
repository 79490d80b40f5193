"""trsm-left-lower: solve L X = B for many right hand sides, in place."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("m n", (7, 9), (12, 8), (60, 80), (200, 240), (800, 900), (2000, 2200))
OUTPUTS = ("B",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def trsm_left_lower(L, B):
    m, n = B.shape
    for i in range(m):
        for j in range(n):
            for k in range(i):
                B[i, j] -= L[i, k] * B[k, j]
            B[i, j] /= L[i, i]


def arguments(sizes, rng):
    m, n = sizes["m"], sizes["n"]
    return {"L": rng.random((m, m)) + m * np.eye(m), "B": rng.random((m, n)) + 0.5}


def numpy_form(L, B):
    from scipy.linalg import blas

    blas.dtrsm(1.0, L.T, B.T, side=1, lower=0, overwrite_b=True)


def FLOPS(sizes):
    return 1.0 * sizes["m"] ** 2 * sizes["n"]
