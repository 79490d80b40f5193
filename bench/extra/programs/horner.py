"""horner: one polynomial at many points by Horner's rule, coefficients from the highest down."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("d n", (7, 11), (9, 16), (20, 1000), (32, 20000), (100, 1000000), (200, 2000000))
OUTPUTS = ("y",)
TEMPORARIES = ()
TOLERANCE = 1e-9


def horner(c, x, y):
    d = c.shape[0]
    n = x.shape[0]
    for i in range(n):
        y[i] = c[d - 1]
        for k in range(d - 2, -1, -1):
            y[i] = y[i] * x[i] + c[k]


def arguments(sizes, rng):
    d, n = sizes["d"], sizes["n"]
    return {"c": rng.random(d) + 0.5, "x": 0.98 * rng.random(n), "y": rng.random(n)}


def numpy_form(c, x, y):
    y[:] = c[-1]
    for value in c[-2::-1]:
        np.multiply(y, x, out=y)
        y += value


def FLOPS(sizes):
    return 2.0 * (sizes["d"] - 1) * sizes["n"]
