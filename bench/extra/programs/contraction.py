"""contraction: C[a, b, c, d] := sum over e, f of A[a, e, b, f] B[d, f, c, e]."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table(
    "na nb nc nd ne nf",
    (3, 4, 5, 2, 3, 4),
    (2, 3, 4, 3, 4, 2),
    (8, 9, 10, 7, 8, 9),
    (14, 15, 16, 13, 15, 14),
    (32, 30, 28, 34, 32, 30),
    (48, 48, 48, 48, 48, 48),
)
OUTPUTS = ("C",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def contraction(C, A, B):
    na, nb, nc, nd = C.shape
    ne = A.shape[1]
    nf = A.shape[3]
    for a in range(na):
        for b in range(nb):
            for c in range(nc):
                for d in range(nd):
                    C[a, b, c, d] = 0.0
                    for e in range(ne):
                        for f in range(nf):
                            C[a, b, c, d] += A[a, e, b, f] * B[d, f, c, e]


def arguments(sizes, rng):
    na, nb, nc, nd, ne, nf = (sizes[k] for k in ("na", "nb", "nc", "nd", "ne", "nf"))
    return {
        "C": rng.random((na, nb, nc, nd)),
        "A": rng.random((na, ne, nb, nf)),
        "B": rng.random((nd, nf, nc, ne)),
    }


def numpy_form(C, A, B):
    C[:] = np.tensordot(A, B, axes=((1, 3), (3, 1))).transpose(0, 1, 3, 2)


def FLOPS(sizes):
    total = 2.0
    for name in ("na", "nb", "nc", "nd", "ne", "nf"):
        total *= sizes[name]
    return total
