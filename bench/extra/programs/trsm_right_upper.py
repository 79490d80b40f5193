"""trsm-right-upper: solve X U = B for many left hand sides, in place."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("m n", (7, 9), (12, 8), (60, 80), (200, 240), (800, 900), (2000, 2200))
OUTPUTS = ("B",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def trsm_right_upper(U, B):
    m, n = B.shape
    for i in range(m):
        for j in range(n):
            for k in range(j):
                B[i, j] -= B[i, k] * U[k, j]
            B[i, j] /= U[j, j]


def arguments(sizes, rng):
    m, n = sizes["m"], sizes["n"]
    return {"U": rng.random((n, n)) + n * np.eye(n), "B": rng.random((m, n)) + 0.5}


def numpy_form(U, B):
    from scipy.linalg import blas

    blas.dtrsm(1.0, U.T, B.T, side=0, lower=1, overwrite_b=True)


def FLOPS(sizes):
    return 1.0 * sizes["m"] * sizes["n"] ** 2
