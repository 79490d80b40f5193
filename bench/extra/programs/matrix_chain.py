"""matrix-chain: cheapest order to multiply each interval of a chain of matrices (int64)."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n", (9,), (13,), (100,), (300,), (1200,), (2400,))
OUTPUTS = ("cost",)
TEMPORARIES = ()
TOLERANCE = 0.0


def matrix_chain(p, cost):
    n = cost.shape[0]
    for i in range(n):
        cost[i, i] = 0
    for s in range(1, n):
        for i in range(n - s):
            cost[i, i + s] = 1000000000000
            for k in range(i, i + s):
                cost[i, i + s] = min(
                    cost[i, i + s],
                    cost[i, k] + cost[k + 1, i + s] + p[i] * p[k + 1] * p[i + s + 1],
                )


def arguments(sizes, rng):
    n = sizes["n"]
    return {
        "p": rng.integers(1, 60, n + 1, dtype=np.int64),
        "cost": np.zeros((n, n), dtype=np.int64),
    }


def FLOPS(sizes):
    return 5.0 * sizes["n"] ** 3 / 6.0
