"""max-pool: the largest of each 2x2 window and, summed, its mean (float32)."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table(
    "c h w",
    (3, 5, 7),
    (2, 6, 5),
    (16, 30, 40),
    (64, 56, 60),
    (128, 200, 220),
    (256, 400, 440),
)
OUTPUTS = ("top", "mean")
TEMPORARIES = ()
TOLERANCE = 1e-4


def max_pool(x, top, mean):
    channels, h, w = top.shape
    for c in range(channels):
        for i in range(h):
            for j in range(w):
                top[c, i, j] = x[c, 2 * i, 2 * j]
                mean[c, i, j] = 0.0
                for p in range(2):
                    for q in range(2):
                        top[c, i, j] = max(top[c, i, j], x[c, 2 * i + p, 2 * j + q])
                        mean[c, i, j] += 0.25 * x[c, 2 * i + p, 2 * j + q]


def arguments(sizes, rng):
    c, h, w = sizes["c"], sizes["h"], sizes["w"]
    return {
        "x": rng.random((c, 2 * h, 2 * w), dtype=np.float32),
        "top": rng.random((c, h, w), dtype=np.float32),
        "mean": rng.random((c, h, w), dtype=np.float32),
    }


def numpy_form(x, top, mean):
    c, h, w = top.shape
    windows = x.reshape(c, h, 2, w, 2)
    np.max(windows, axis=(2, 4), out=top)
    np.mean(windows, axis=(2, 4), out=mean)


def FLOPS(sizes):
    return 12.0 * sizes["c"] * sizes["h"] * sizes["w"]
