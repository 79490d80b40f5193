"""mandelbrot: z := z^2 + c a fixed number of times; points outside the disc stay put."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table(
    "iterations h w",
    (9, 7, 9),
    (12, 5, 8),
    (30, 60, 80),
    (50, 200, 240),
    (100, 1000, 1200),
    (200, 2000, 2400),
)
OUTPUTS = ("count",)
TEMPORARIES = ()
TOLERANCE = 0.0


def mandelbrot(iterations, cx, cy, count):
    h, w = count.shape
    for i in range(h):
        for j in range(w):
            zr = 0.0
            zi = 0.0
            count[i, j] = 0
            for t in range(iterations):  # noqa: B007
                r2 = zr * zr
                i2 = zi * zi
                zi = 2.0 * zr * zi + cy[i] if r2 + i2 <= 4.0 else zi
                zr = r2 - i2 + cx[j] if r2 + i2 <= 4.0 else zr
                count[i, j] += 1 if r2 + i2 <= 4.0 else 0


def arguments(sizes, rng):
    h, w = sizes["h"], sizes["w"]
    return {
        "iterations": sizes["iterations"],
        "cx": np.linspace(-2.01, 0.63, w),
        "cy": np.linspace(-1.13, 1.17, h),
        "count": rng.integers(0, 9, (h, w), dtype=np.int32),
    }


def FLOPS(sizes):
    return 10.0 * sizes["iterations"] * sizes["h"] * sizes["w"]
