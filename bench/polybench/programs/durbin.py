"""durbin: Levinson-Durbin recursion for the Yule-Walker equations of the sequence r."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n", (11,), (40,), (120,), (400,), (2000,), (4000,))
OUTPUTS = ("y",)
TEMPORARIES = ("z",)
TOLERANCE = 1e-9


def durbin(r, y, z):
    n = r.shape[0]
    y[0] = -r[0]
    beta = 1.0
    alpha = -r[0]
    for k in range(1, n):
        beta = (1.0 - alpha * alpha) * beta
        total = 0.0
        for i in range(k):
            total += r[k - i - 1] * y[i]
        alpha = -(r[k] + total) / beta
        for i in range(k):
            z[i] = y[i] + alpha * y[k - i - 1]
        for i in range(k):
            y[i] = z[i]
        y[k] = alpha


def arguments(sizes, rng):
    n = sizes["n"]
    r = 0.3 * (0.5 + 0.5 * rng.random(n)) / np.arange(1.0, n + 1.0) ** 2
    return {"r": r, "y": rng.random(n), "z": rng.random(n)}


def numpy_form(r, y, z):
    n = r.shape[0]
    y[0] = -r[0]
    beta, alpha = 1.0, -r[0]
    for k in range(1, n):
        beta = (1.0 - alpha * alpha) * beta
        alpha = -(r[k] + np.dot(r[:k][::-1], y[:k])) / beta
        y[:k] += alpha * y[:k][::-1]
        y[k] = alpha


def FLOPS(sizes):
    return 2.0 * sizes["n"] ** 2
