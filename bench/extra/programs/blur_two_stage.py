"""blur-two-stage: 3x3 box blur as a horizontal, then a vertical pass (float32)."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("h w", (7, 9), (12, 15), (120, 160), (500, 600), (6000, 7000), (10000, 12000))
OUTPUTS = ("out",)
TEMPORARIES = ("tmp",)
TOLERANCE = 1e-5


def blur_two_stage(img, tmp, out):
    h, w = img.shape
    for i in range(h):
        for j in range(1, w - 1):
            tmp[i, j] = (img[i, j - 1] + img[i, j] + img[i, j + 1]) / 3.0
    for i in range(1, h - 1):
        for j in range(1, w - 1):
            out[i, j] = (tmp[i - 1, j] + tmp[i, j] + tmp[i + 1, j]) / 3.0


def arguments(sizes, rng):
    shape = sizes["h"], sizes["w"]
    return {name: rng.random(shape, dtype=np.float32) for name in ("img", "tmp", "out")}


def numpy_form(img, tmp, out):
    third = np.float32(3.0)
    tmp[:, 1:-1] = (img[:, :-2] + img[:, 1:-1] + img[:, 2:]) / third
    out[1:-1, 1:-1] = (tmp[:-2, 1:-1] + tmp[1:-1, 1:-1] + tmp[2:, 1:-1]) / third


def FLOPS(sizes):
    return 6.0 * sizes["h"] * sizes["w"]
