"""batched-dense: y = relu(x W + b) for a batch of small matrices (float32)."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table(
    "batch m n k",
    (3, 5, 7, 9),
    (2, 4, 6, 5),
    (20, 16, 20, 24),
    (100, 32, 30, 36),
    (1000, 64, 60, 72),
    (4000, 96, 90, 100),
)
OUTPUTS = ("y",)
TEMPORARIES = ()
TOLERANCE = 1e-4


def batched_dense(x, weight, bias, y):
    batch, m, n = y.shape
    inner = x.shape[2]
    for b in range(batch):
        for i in range(m):
            for j in range(n):
                y[b, i, j] = bias[j]
                for k in range(inner):
                    y[b, i, j] += x[b, i, k] * weight[b, k, j]
                y[b, i, j] = y[b, i, j] if y[b, i, j] > 0.0 else 0.0


def arguments(sizes, rng):
    batch, m, n, k = sizes["batch"], sizes["m"], sizes["n"], sizes["k"]
    return {
        "x": rng.random((batch, m, k), dtype=np.float32) - np.float32(0.5),
        "weight": rng.random((batch, k, n), dtype=np.float32) - np.float32(0.5),
        "bias": rng.random(n, dtype=np.float32),
        "y": rng.random((batch, m, n), dtype=np.float32),
    }


def numpy_form(x, weight, bias, y):
    np.matmul(x, weight, out=y)
    y += bias
    np.maximum(y, 0.0, out=y)


def FLOPS(sizes):
    return 2.0 * sizes["batch"] * sizes["m"] * sizes["n"] * (sizes["k"] + 1)
