"""conv2d: multi-channel 2-D convolution of a batch, plus bias (float32)."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table(
    "batch cin cout h w r",
    (2, 3, 4, 7, 5, 3),
    (1, 2, 3, 6, 7, 3),
    (2, 8, 8, 24, 28, 3),
    (2, 16, 32, 28, 30, 3),
    (4, 64, 64, 54, 56, 3),
    (8, 128, 128, 54, 56, 3),
)
OUTPUTS = ("y",)
TEMPORARIES = ()
TOLERANCE = 1e-4


def conv2d(x, weight, bias, y):
    batch, cout, h, w = y.shape
    cin = x.shape[1]
    r = weight.shape[2]
    for b in range(batch):
        for o in range(cout):
            for i in range(h):
                for j in range(w):
                    y[b, o, i, j] = bias[o]
                    for c in range(cin):
                        for p in range(r):
                            for q in range(r):
                                y[b, o, i, j] += weight[o, c, p, q] * x[b, c, i + p, j + q]


def arguments(sizes, rng):
    batch, cin, cout, h, w, r = (sizes[k] for k in ("batch", "cin", "cout", "h", "w", "r"))
    return {
        "x": rng.random((batch, cin, h + r - 1, w + r - 1), dtype=np.float32),
        "weight": rng.random((cout, cin, r, r), dtype=np.float32),
        "bias": rng.random(cout, dtype=np.float32),
        "y": rng.random((batch, cout, h, w), dtype=np.float32),
    }


def numpy_form(x, weight, bias, y):
    h, w = y.shape[2:]
    r = weight.shape[2]
    y[:] = bias[:, None, None]
    for p in range(r):
        for q in range(r):
            y += np.einsum("oc,bcij->boij", weight[:, :, p, q], x[:, :, p : p + h, q : q + w])


def FLOPS(sizes):
    outputs = sizes["batch"] * sizes["cout"] * sizes["h"] * sizes["w"]
    return 2.0 * outputs * sizes["cin"] * sizes["r"] ** 2
