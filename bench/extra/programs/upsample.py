"""upsample: twice the resolution by linear interpolation; writes have stride two (float32)."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n m", (7, 9), (9, 8), (120, 160), (500, 600), (3000, 4000), (5000, 6000))
OUTPUTS = ("B",)
TEMPORARIES = ()
TOLERANCE = 1e-5


def upsample(A, B):
    n, m = A.shape
    for i in range(n - 1):
        for j in range(m - 1):
            B[2 * i, 2 * j] = A[i, j]
            B[2 * i + 1, 2 * j] = 0.5 * (A[i, j] + A[i + 1, j])
            B[2 * i, 2 * j + 1] = 0.5 * (A[i, j] + A[i, j + 1])
            B[2 * i + 1, 2 * j + 1] = 0.25 * (A[i, j] + A[i + 1, j] + A[i, j + 1] + A[i + 1, j + 1])


def arguments(sizes, rng):
    n, m = sizes["n"], sizes["m"]
    return {
        "A": rng.random((n, m), dtype=np.float32),
        "B": rng.random((2 * n, 2 * m), dtype=np.float32),
    }


def numpy_form(A, B):
    a, down, right, both = A[:-1, :-1], A[1:, :-1], A[:-1, 1:], A[1:, 1:]
    B[:-2:2, :-2:2] = a
    B[1:-2:2, :-2:2] = 0.5 * (a + down)
    B[:-2:2, 1:-2:2] = 0.5 * (a + right)
    B[1:-2:2, 1:-2:2] = 0.25 * (a + down + right + both)


def FLOPS(sizes):
    return 8.0 * sizes["n"] * sizes["m"]
