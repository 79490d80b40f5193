"""trisolv: solve L x = b by forward substitution."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n", (11,), (40,), (120,), (400,), (2000,), (4000,))
OUTPUTS = ("x",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def trisolv(L, x, b):
    n = L.shape[0]
    for i in range(n):
        x[i] = b[i]
        for j in range(i):
            x[i] -= L[i, j] * x[j]
        x[i] = x[i] / L[i, i]


def arguments(sizes, rng):
    n = sizes["n"]
    return {
        "L": rng.random((n, n)) + n * np.eye(n),
        "x": rng.random(n),
        "b": rng.random(n) + 0.5,
    }


def numpy_form(L, x, b):
    from scipy.linalg import blas

    x[:] = b
    blas.dtrsv(L.T, x, lower=0, trans=1, overwrite_x=True)


def FLOPS(sizes):
    return 1.0 * sizes["n"] ** 2
