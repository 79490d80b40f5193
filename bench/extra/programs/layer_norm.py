"""layer-norm: every row to mean 0 and variance 1, then scaled and shifted (float32)."""

import math

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n m", (7, 9), (12, 15), (120, 160), (500, 600), (6000, 4000), (12000, 8000))
OUTPUTS = ("y",)
TEMPORARIES = ()
TOLERANCE = 1e-3


def layer_norm(eps, x, gain, shift, y):
    n, m = x.shape
    for i in range(n):
        mean = 0.0
        for j in range(m):
            mean += x[i, j]
        mean /= m
        var = 0.0
        for j in range(m):
            var += (x[i, j] - mean) * (x[i, j] - mean)
        var /= m
        scale = 1.0 / math.sqrt(var + eps)
        for j in range(m):
            y[i, j] = (x[i, j] - mean) * scale * gain[j] + shift[j]


def arguments(sizes, rng):
    n, m = sizes["n"], sizes["m"]
    return {
        "eps": np.float32(1e-5),
        "x": rng.random((n, m), dtype=np.float32),
        "gain": rng.random(m, dtype=np.float32) + np.float32(0.5),
        "shift": rng.random(m, dtype=np.float32),
        "y": rng.random((n, m), dtype=np.float32),
    }


def numpy_form(eps, x, gain, shift, y):
    np.subtract(x, x.mean(axis=1, keepdims=True), out=y)
    y *= 1.0 / np.sqrt(np.mean(y * y, axis=1, keepdims=True) + eps)
    y *= gain
    y += shift


def FLOPS(sizes):
    return 8.0 * sizes["n"] * sizes["m"]
