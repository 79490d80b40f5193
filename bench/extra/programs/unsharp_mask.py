"""unsharp-mask: sharpen three channels where they differ enough from their blur (float32)."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("h w", (9, 11), (10, 13), (120, 160), (400, 500), (2000, 2400), (4000, 5000))
OUTPUTS = ("out",)
TEMPORARIES = ("bx", "by")
TOLERANCE = 1e-4


def unsharp_mask(amount, threshold, img, bx, by, out):
    h = img.shape[1]
    w = img.shape[2]
    for c in range(3):
        for i in range(2, h - 2):
            for j in range(w):
                bx[c, i, j] = (
                    0.0625 * img[c, i - 2, j]
                    + 0.25 * img[c, i - 1, j]
                    + 0.375 * img[c, i, j]
                    + 0.25 * img[c, i + 1, j]
                    + 0.0625 * img[c, i + 2, j]
                )
    for c in range(3):
        for i in range(2, h - 2):
            for j in range(2, w - 2):
                by[c, i, j] = (
                    0.0625 * bx[c, i, j - 2]
                    + 0.25 * bx[c, i, j - 1]
                    + 0.375 * bx[c, i, j]
                    + 0.25 * bx[c, i, j + 1]
                    + 0.0625 * bx[c, i, j + 2]
                )
    for c in range(3):
        for i in range(2, h - 2):
            for j in range(2, w - 2):
                detail = img[c, i, j] - by[c, i, j]
                out[c, i, j] = (
                    img[c, i, j] if abs(detail) < threshold else img[c, i, j] + amount * detail
                )


def arguments(sizes, rng):
    shape = 3, sizes["h"], sizes["w"]
    # Multiples of 1/64 and a threshold between representable sums: no result sits on the edge.
    img = rng.integers(0, 64, shape).astype(np.float32) / np.float32(64)
    scratch = {name: rng.random(shape, dtype=np.float32) for name in ("bx", "by", "out")}
    return {"amount": np.float32(1.5), "threshold": np.float32(0.1001), "img": img, **scratch}


def FLOPS(sizes):
    return 3.0 * 22.0 * sizes["h"] * sizes["w"]
