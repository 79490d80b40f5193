"""depthwise-conv: one 3x3 filter per channel, stride two, clipped to [0, 6] (float32)."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table(
    "c h w",
    (3, 5, 7),
    (4, 6, 5),
    (16, 30, 40),
    (64, 56, 60),
    (256, 224, 224),
    (512, 448, 448),
)
OUTPUTS = ("y",)
TEMPORARIES = ()
TOLERANCE = 1e-4


def depthwise_conv(x, weight, y):
    channels, h, w = y.shape
    for c in range(channels):
        for i in range(h):
            for j in range(w):
                acc = 0.0
                for p in range(3):
                    for q in range(3):
                        acc += weight[c, p, q] * x[c, 2 * i + p, 2 * j + q]
                y[c, i, j] = min(max(acc, 0.0), 6.0)


def arguments(sizes, rng):
    c, h, w = sizes["c"], sizes["h"], sizes["w"]
    return {
        "x": rng.random((c, 2 * h + 1, 2 * w + 1), dtype=np.float32),
        "weight": (4 * rng.random((c, 3, 3), dtype=np.float32) - 1).astype(np.float32),
        "y": rng.random((c, h, w), dtype=np.float32),
    }


def numpy_form(x, weight, y):
    h, w = y.shape[1:]
    y[:] = 0.0
    for p in range(3):
        for q in range(3):
            y += weight[:, p, q, None, None] * x[:, p : p + 2 * h : 2, q : q + 2 * w : 2]
    np.clip(y, 0.0, 6.0, out=y)


def FLOPS(sizes):
    return 20.0 * sizes["c"] * sizes["h"] * sizes["w"]
