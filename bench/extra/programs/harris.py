"""harris: corner response det(M) - 0.04 trace(M)^2 of summed gradient products (float32)."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("h w", (9, 11), (10, 13), (120, 160), (400, 500), (4000, 5000), (8000, 10000))
OUTPUTS = ("out",)
TEMPORARIES = ("ix", "iy")
TOLERANCE = 1e-4


def harris(img, ix, iy, out):
    h, w = img.shape
    for i in range(1, h - 1):
        for j in range(1, w - 1):
            ix[i, j] = (
                img[i + 1, j - 1]
                - img[i - 1, j - 1]
                + 2.0 * (img[i + 1, j] - img[i - 1, j])
                + img[i + 1, j + 1]
                - img[i - 1, j + 1]
            ) / 12.0
            iy[i, j] = (
                img[i - 1, j + 1]
                - img[i - 1, j - 1]
                + 2.0 * (img[i, j + 1] - img[i, j - 1])
                + img[i + 1, j + 1]
                - img[i + 1, j - 1]
            ) / 12.0
    for i in range(2, h - 2):
        for j in range(2, w - 2):
            sxx = 0.0
            syy = 0.0
            sxy = 0.0
            for r in range(-1, 2):
                for s in range(-1, 2):
                    sxx += ix[i + r, j + s] * ix[i + r, j + s]
                    syy += iy[i + r, j + s] * iy[i + r, j + s]
                    sxy += ix[i + r, j + s] * iy[i + r, j + s]
            trace = sxx + syy
            out[i, j] = sxx * syy - sxy * sxy - 0.04 * trace * trace


def arguments(sizes, rng):
    shape = sizes["h"], sizes["w"]
    return {name: rng.random(shape, dtype=np.float32) for name in ("img", "ix", "iy", "out")}


def FLOPS(sizes):
    return 78.0 * sizes["h"] * sizes["w"]
