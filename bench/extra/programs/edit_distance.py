"""edit-distance: Levenshtein distance of every pair of prefixes."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n m", (9, 11), (17, 14), (200, 240), (1000, 1200), (8000, 9000), (16000, 18000))
OUTPUTS = ("D",)
TEMPORARIES = ()
TOLERANCE = 0.0


def edit_distance(a, b, D):
    n = a.shape[0]
    m = b.shape[0]
    for i in range(n + 1):
        D[i, 0] = i
    for j in range(m + 1):
        D[0, j] = j
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            change = D[i - 1, j - 1] + (0 if a[i - 1] == b[j - 1] else 1)
            D[i, j] = min(change, min(D[i - 1, j], D[i, j - 1]) + 1)


def arguments(sizes, rng):
    n, m = sizes["n"], sizes["m"]
    return {
        "a": rng.integers(0, 4, n, dtype=np.int32),
        "b": rng.integers(0, 4, m, dtype=np.int32),
        "D": rng.integers(0, 9, (n + 1, m + 1), dtype=np.int32),
    }


def FLOPS(sizes):
    return 5.0 * sizes["n"] * sizes["m"]
