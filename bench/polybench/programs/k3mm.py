"""3mm: G := (A B) (C D), as three matrix products in dot-product form."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table(
    "ni nj nk nl nm",
    (7, 9, 11, 5, 6),
    (16, 18, 20, 22, 24),
    (40, 50, 60, 70, 80),
    (180, 190, 200, 210, 220),
    (800, 900, 1000, 1100, 1200),
    (1600, 1800, 2000, 2200, 2400),
)
OUTPUTS = ("G",)
TEMPORARIES = ("E", "F")
TOLERANCE = 1e-10


def k3mm(E, A, B, F, C, D, G):
    ni, nk = A.shape
    nj, nm = C.shape
    nl = D.shape[1]
    for i in range(ni):
        for j in range(nj):
            E[i, j] = 0.0
            for k in range(nk):
                E[i, j] += A[i, k] * B[k, j]
    for i in range(nj):
        for j in range(nl):
            F[i, j] = 0.0
            for k in range(nm):
                F[i, j] += C[i, k] * D[k, j]
    for i in range(ni):
        for j in range(nl):
            G[i, j] = 0.0
            for k in range(nj):
                G[i, j] += E[i, k] * F[k, j]


def arguments(sizes, rng):
    ni, nj, nk, nl, nm = (sizes[name] for name in ("ni", "nj", "nk", "nl", "nm"))
    return {
        "E": rng.random((ni, nj)),
        "A": rng.random((ni, nk)),
        "B": rng.random((nk, nj)),
        "F": rng.random((nj, nl)),
        "C": rng.random((nj, nm)),
        "D": rng.random((nm, nl)),
        "G": rng.random((ni, nl)),
    }


def numpy_form(E, A, B, F, C, D, G):
    np.matmul(A, B, out=E)
    np.matmul(C, D, out=F)
    np.matmul(E, F, out=G)


def FLOPS(sizes):
    ni, nj, nk, nl, nm = (sizes[name] for name in ("ni", "nj", "nk", "nl", "nm"))
    return 2.0 * (ni * nj * nk + nj * nl * nm + ni * nl * nj)
