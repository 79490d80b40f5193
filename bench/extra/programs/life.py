"""life: Conway's game of life on a framed int32 board, two generations per step."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("tsteps n", (2, 9), (3, 12), (10, 100), (20, 400), (50, 2000), (100, 4000))
OUTPUTS = ("A", "B")
TEMPORARIES = ()
TOLERANCE = 0.0


def life(tsteps, A, B):
    n = A.shape[0]
    for t in range(tsteps):  # noqa: B007
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                s = A[i - 1, j - 1] + A[i - 1, j] + A[i - 1, j + 1] + A[i, j - 1]
                s += A[i, j + 1] + A[i + 1, j - 1] + A[i + 1, j] + A[i + 1, j + 1]
                B[i, j] = 1 if s == 3 else (A[i, j] if s == 2 else 0)
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                s = B[i - 1, j - 1] + B[i - 1, j] + B[i - 1, j + 1] + B[i, j - 1]
                s += B[i, j + 1] + B[i + 1, j - 1] + B[i + 1, j] + B[i + 1, j + 1]
                A[i, j] = 1 if s == 3 else (B[i, j] if s == 2 else 0)


def arguments(sizes, rng):
    n = sizes["n"]
    A = rng.integers(0, 2, (n, n), dtype=np.int32)
    return {"tsteps": sizes["tsteps"], "A": A, "B": A.copy()}


def FLOPS(sizes):
    return 20.0 * sizes["tsteps"] * (sizes["n"] - 2) ** 2
