"""softmax-rows: exp(x - max) / sum along every row."""

import math

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n m", (7, 9), (12, 15), (120, 160), (500, 600), (3000, 4000), (6000, 8000))
OUTPUTS = ("y",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def softmax_rows(x, y):
    n, m = x.shape
    for i in range(n):
        top = x[i, 0]
        for j in range(1, m):
            top = max(top, x[i, j])
        total = 0.0
        for j in range(m):
            y[i, j] = math.exp(x[i, j] - top)
            total += y[i, j]
        for j in range(m):
            y[i, j] /= total


def arguments(sizes, rng):
    shape = sizes["n"], sizes["m"]
    return {"x": 10.0 * rng.random(shape), "y": rng.random(shape)}


def numpy_form(x, y):
    np.exp(x - x.max(axis=1, keepdims=True), out=y)
    y /= y.sum(axis=1, keepdims=True)


def FLOPS(sizes):
    return 5.0 * sizes["n"] * sizes["m"]
