"""fdtd-mur: 2-D FDTD (TM), absorbing first-order Mur walls left and right, conducting elsewhere."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table(
    "tsteps n m",
    (3, 7, 9),
    (3, 9, 8),
    (30, 80, 90),
    (80, 250, 300),
    (200, 900, 1000),
    (400, 1800, 2000),
)
OUTPUTS = ("hx", "hy", "ez")
TEMPORARIES = ("left", "right")
TOLERANCE = 1e-9


def fdtd_mur(tsteps, hx, hy, ez, left, right):
    n, m = ez.shape
    for t in range(tsteps):  # noqa: B007
        for i in range(n):
            for j in range(m - 1):
                hx[i, j] -= 0.5 * (ez[i, j + 1] - ez[i, j])
        for i in range(n - 1):
            for j in range(m):
                hy[i, j] += 0.5 * (ez[i + 1, j] - ez[i, j])
        for i in range(n):
            left[i] = ez[i, 1]
            right[i] = ez[i, m - 2]
        for i in range(1, n - 1):
            for j in range(1, m - 1):
                ez[i, j] += 0.5 * (hy[i, j] - hy[i - 1, j] - hx[i, j] + hx[i, j - 1])
        for i in range(1, n - 1):
            ez[i, 0] = left[i] - (ez[i, 1] - ez[i, 0]) / 3.0
            ez[i, m - 1] = right[i] - (ez[i, m - 2] - ez[i, m - 1]) / 3.0
        for j in range(m):
            ez[0, j] = 0.0
            ez[n - 1, j] = 0.0


def arguments(sizes, rng):
    n, m = sizes["n"], sizes["m"]
    return {
        "tsteps": sizes["tsteps"],
        "hx": rng.random((n, m)) - 0.5,
        "hy": rng.random((n, m)) - 0.5,
        "ez": rng.random((n, m)) - 0.5,
        "left": np.zeros(n),
        "right": np.zeros(n),
    }


def numpy_form(tsteps, hx, hy, ez, left, right):
    for _ in range(tsteps):
        hx[:, :-1] -= 0.5 * (ez[:, 1:] - ez[:, :-1])
        hy[:-1] += 0.5 * (ez[1:] - ez[:-1])
        left[:] = ez[:, 1]
        right[:] = ez[:, -2]
        curl = hy[1:-1, 1:-1] - hy[:-2, 1:-1] - hx[1:-1, 1:-1] + hx[1:-1, :-2]
        ez[1:-1, 1:-1] += 0.5 * curl
        ez[1:-1, 0] = left[1:-1] - (ez[1:-1, 1] - ez[1:-1, 0]) / 3.0
        ez[1:-1, -1] = right[1:-1] - (ez[1:-1, -2] - ez[1:-1, -1]) / 3.0
        ez[0] = 0.0
        ez[-1] = 0.0


def FLOPS(sizes):
    return 11.0 * sizes["tsteps"] * sizes["n"] * sizes["m"]
