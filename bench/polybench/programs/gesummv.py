"""gesummv: y := alpha A x + beta B x."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n", (11,), (30,), (90,), (250,), (1300,), (2800,))
OUTPUTS = ("y",)
TEMPORARIES = ("tmp",)
TOLERANCE = 1e-10


def gesummv(alpha, beta, A, B, tmp, x, y):
    n = A.shape[0]
    for i in range(n):
        tmp[i] = 0.0
        y[i] = 0.0
        for j in range(n):
            tmp[i] = A[i, j] * x[j] + tmp[i]
            y[i] = B[i, j] * x[j] + y[i]
        y[i] = alpha * tmp[i] + beta * y[i]


def arguments(sizes, rng):
    n = sizes["n"]
    return {
        "alpha": 1.5,
        "beta": 1.2,
        "A": rng.random((n, n)),
        "B": rng.random((n, n)),
        "tmp": rng.random(n),
        "x": rng.random(n),
        "y": rng.random(n),
    }


def numpy_form(alpha, beta, A, B, tmp, x, y):
    np.dot(A, x, out=tmp)
    np.dot(B, x, out=y)
    y *= beta
    y += alpha * tmp


def FLOPS(sizes):
    return 4.0 * sizes["n"] ** 2 + 3.0 * sizes["n"]
