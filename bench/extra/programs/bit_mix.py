"""bit-mix: integer rounds of shifts, masks, products and remainders on int32 and int64 values.

All operands stay non-negative, so division and remainder are the same in Python and in C.
"""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table(
    "rounds n", (3, 11), (4, 17), (8, 1000), (16, 10000), (32, 1000000), (32, 4000000)
)
OUTPUTS = ("x", "y")
TEMPORARIES = ()
TOLERANCE = 0.0


def bit_mix(rounds, x, y):
    n = x.shape[0]
    for r in range(rounds):
        for i in range(n):
            x[i] = ((x[i] << 3) ^ (x[i] >> 5) ^ (7 * i + r)) & 1048575
            x[i] |= x[i] // 3 & 255
        for i in range(n):
            y[i] += x[i]
            y[i] = (y[i] * y[i] + 12345) % 1000003
            y[i] ^= y[i] >> 2


def arguments(sizes, rng):
    n = sizes["n"]
    return {
        "rounds": sizes["rounds"],
        "x": rng.integers(0, 1 << 20, n, dtype=np.int32),
        "y": rng.integers(0, 1 << 20, n, dtype=np.int64),
    }


def numpy_form(rounds, x, y):
    i = np.arange(x.shape[0])
    for r in range(rounds):
        x[:] = ((x << 3) ^ (x >> 5) ^ (7 * i + r)) & 1048575
        x |= x // 3 & 255
        y += x
        y[:] = (y * y + 12345) % 1000003
        y ^= y >> 2


def FLOPS(sizes):
    return 16.0 * sizes["rounds"] * sizes["n"]
