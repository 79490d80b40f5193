"""integral-image: prefix sums along every row, then along every column."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("h w", (7, 9), (12, 15), (120, 160), (500, 600), (4000, 5000), (8000, 9000))
OUTPUTS = ("S",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def integral_image(A, S):
    h, w = A.shape
    for i in range(h):
        S[i, 0] = A[i, 0]
        for j in range(1, w):
            S[i, j] = S[i, j - 1] + A[i, j]
    for j in range(w):
        for i in range(1, h):
            S[i, j] += S[i - 1, j]


def arguments(sizes, rng):
    shape = sizes["h"], sizes["w"]
    return {"A": rng.random(shape), "S": rng.random(shape)}


def numpy_form(A, S):
    np.cumsum(A, axis=1, out=S)
    np.cumsum(S, axis=0, out=S)


def FLOPS(sizes):
    return 2.0 * sizes["h"] * sizes["w"]
