"""convolve: full 1-D convolution written as a scatter, y[i + j] += x[i] h[j]."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n m", (11, 7), (16, 5), (500, 100), (4000, 500), (100000, 4000), (200000, 8000))
OUTPUTS = ("y",)
TEMPORARIES = ()
TOLERANCE = 1e-9


def convolve(x, h, y):
    n = x.shape[0]
    m = h.shape[0]
    for i in range(n + m - 1):
        y[i] = 0.0
    for i in range(n):
        for j in range(m):
            y[i + j] += x[i] * h[j]


def arguments(sizes, rng):
    n, m = sizes["n"], sizes["m"]
    return {"x": rng.random(n), "h": rng.random(m), "y": rng.random(n + m - 1)}


def numpy_form(x, h, y):
    y[:] = np.convolve(x, h)


def FLOPS(sizes):
    return 2.0 * sizes["n"] * sizes["m"]
