"""smith-waterman: local alignment scores with affine gaps (Gotoh's three tables)."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n m", (9, 11), (17, 14), (200, 240), (800, 900), (4000, 5000), (8000, 10000))
OUTPUTS = ("H", "E", "F")
TEMPORARIES = ()
TOLERANCE = 0.0


def smith_waterman(a, b, H, E, F):
    n = a.shape[0]
    m = b.shape[0]
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            E[i, j] = max(E[i, j - 1] - 1, H[i, j - 1] - 3)
            F[i, j] = max(F[i - 1, j] - 1, H[i - 1, j] - 3)
            H[i, j] = max(
                max(0, H[i - 1, j - 1] + (2 if a[i - 1] == b[j - 1] else -1)),
                max(E[i, j], F[i, j]),
            )


def arguments(sizes, rng):
    n, m = sizes["n"], sizes["m"]
    tables = {name: np.zeros((n + 1, m + 1), dtype=np.int32) for name in ("H", "E", "F")}
    return {
        "a": rng.integers(0, 4, n, dtype=np.int32),
        "b": rng.integers(0, 4, m, dtype=np.int32),
        **tables,
    }


def FLOPS(sizes):
    return 11.0 * sizes["n"] * sizes["m"]
