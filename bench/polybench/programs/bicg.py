"""bicg: s := A^T r and q := A p in one sweep over A (the BiCG sub-kernel)."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("m n", (7, 9), (38, 42), (116, 124), (390, 410), (1900, 2100), (1800, 2200))
OUTPUTS = ("s", "q")
TEMPORARIES = ()
TOLERANCE = 1e-10


def bicg(A, s, q, p, r):
    n, m = A.shape
    for i in range(m):
        s[i] = 0.0
    for i in range(n):
        q[i] = 0.0
        for j in range(m):
            s[j] += r[i] * A[i, j]
            q[i] += A[i, j] * p[j]


def arguments(sizes, rng):
    m, n = sizes["m"], sizes["n"]
    return {
        "A": rng.random((n, m)),
        "s": rng.random(m),
        "q": rng.random(n),
        "p": rng.random(m),
        "r": rng.random(n),
    }


def numpy_form(A, s, q, p, r):
    np.dot(A.T, r, out=s)
    np.dot(A, p, out=q)


def FLOPS(sizes):
    return 4.0 * sizes["m"] * sizes["n"]
