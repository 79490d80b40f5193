"""sobel-clamped: Sobel gradient magnitude; indices are clamped to the image by min and max."""

import math

from bench.polybench.sizes import size_table

SIZES = size_table("h w", (7, 9), (12, 15), (120, 160), (500, 600), (2500, 3000), (5000, 6000))
OUTPUTS = ("out",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def sobel_clamped(img, out):
    h, w = img.shape
    for i in range(h):
        for j in range(w):
            gx = (
                img[min(i + 1, h - 1), max(j - 1, 0)]
                - img[max(i - 1, 0), max(j - 1, 0)]
                + 2.0 * (img[min(i + 1, h - 1), j] - img[max(i - 1, 0), j])
                + img[min(i + 1, h - 1), min(j + 1, w - 1)]
                - img[max(i - 1, 0), min(j + 1, w - 1)]
            )
            gy = (
                img[max(i - 1, 0), min(j + 1, w - 1)]
                - img[max(i - 1, 0), max(j - 1, 0)]
                + 2.0 * (img[i, min(j + 1, w - 1)] - img[i, max(j - 1, 0)])
                + img[min(i + 1, h - 1), min(j + 1, w - 1)]
                - img[min(i + 1, h - 1), max(j - 1, 0)]
            )
            out[i, j] = math.sqrt(gx * gx + gy * gy)


def arguments(sizes, rng):
    shape = sizes["h"], sizes["w"]
    return {"img": rng.random(shape), "out": rng.random(shape)}


def FLOPS(sizes):
    return 18.0 * sizes["h"] * sizes["w"]
