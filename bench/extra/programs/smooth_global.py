"""smooth-global: repeated 3x3 smoothing; in C, weights and buffer are file-scope arrays."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("tsteps n", (3, 9), (3, 12), (10, 100), (20, 300), (50, 1200), (100, 2000))
OUTPUTS = ("A",)
TEMPORARIES = ("buffer",)
C_GLOBALS = ("weight", "buffer")
TOLERANCE = 1e-10


def smooth_global(tsteps, A, weight, buffer):
    n = A.shape[0]
    for t in range(tsteps):  # noqa: B007
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                buffer[i, j] = 0.0
                for p in range(3):
                    for q in range(3):
                        buffer[i, j] += weight[p, q] * A[i + p - 1, j + q - 1]
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                A[i, j] = buffer[i, j]


def arguments(sizes, rng):
    n = sizes["n"]
    weight = np.array([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16.0
    return {
        "tsteps": sizes["tsteps"],
        "A": rng.random((n, n)) + 0.5,
        "weight": weight,
        "buffer": rng.random((n, n)),
    }


def FLOPS(sizes):
    return 18.0 * sizes["tsteps"] * (sizes["n"] - 2) ** 2
