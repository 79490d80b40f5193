"""floyd-warshall: all-pairs shortest paths on an integer distance matrix, in place."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n", (11,), (60,), (180,), (500,), (2800,), (5600,))
OUTPUTS = ("path",)
TEMPORARIES = ()
TOLERANCE = 0.0


def floyd_warshall(path):
    n = path.shape[0]
    for k in range(n):
        for i in range(n):
            for j in range(n):
                path[i, j] = (
                    path[i, j] if path[i, j] < path[i, k] + path[k, j] else path[i, k] + path[k, j]
                )


def arguments(sizes, rng):
    n = sizes["n"]
    path = rng.integers(1, 1000, (n, n), dtype=np.int32)
    np.fill_diagonal(path, 0)
    return {"path": path}


def numpy_form(path):
    for k in range(path.shape[0]):
        np.minimum(path, path[:, k, None] + path[k], out=path)


def FLOPS(sizes):
    return 2.0 * sizes["n"] ** 3
