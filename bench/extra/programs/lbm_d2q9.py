"""lbm-d2q9: lattice Boltzmann, nine velocities, pull streaming and BGK collision of inner cells."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table(
    "tsteps n m",
    (3, 7, 9),
    (3, 9, 8),
    (20, 60, 70),
    (40, 200, 220),
    (60, 500, 600),
    (100, 1000, 1200),
)
OUTPUTS = ("f",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def lbm_d2q9(tsteps, omega, f):
    n = f.shape[2]
    m = f.shape[3]
    for t in range(tsteps):
        for i in range(1, n - 1):
            for j in range(1, m - 1):
                f0 = f[t % 2, 0, i, j]
                f1 = f[t % 2, 1, i - 1, j]
                f2 = f[t % 2, 2, i, j - 1]
                f3 = f[t % 2, 3, i + 1, j]
                f4 = f[t % 2, 4, i, j + 1]
                f5 = f[t % 2, 5, i - 1, j - 1]
                f6 = f[t % 2, 6, i + 1, j - 1]
                f7 = f[t % 2, 7, i + 1, j + 1]
                f8 = f[t % 2, 8, i - 1, j + 1]
                rho = f0 + f1 + f2 + f3 + f4 + f5 + f6 + f7 + f8
                ux = (f1 + f5 + f8 - f3 - f6 - f7) / rho
                uy = (f2 + f5 + f6 - f4 - f7 - f8) / rho
                base = 1.0 - 1.5 * (ux * ux + uy * uy)
                side = rho / 9.0
                edge = rho / 36.0
                up = ux + uy
                down = ux - uy
                f[(t + 1) % 2, 0, i, j] = f0 + omega * (4.0 * side * base - f0)
                f[(t + 1) % 2, 1, i, j] = f1 + omega * (
                    side * (base + 3.0 * ux + 4.5 * ux * ux) - f1
                )
                f[(t + 1) % 2, 2, i, j] = f2 + omega * (
                    side * (base + 3.0 * uy + 4.5 * uy * uy) - f2
                )
                f[(t + 1) % 2, 3, i, j] = f3 + omega * (
                    side * (base - 3.0 * ux + 4.5 * ux * ux) - f3
                )
                f[(t + 1) % 2, 4, i, j] = f4 + omega * (
                    side * (base - 3.0 * uy + 4.5 * uy * uy) - f4
                )
                f[(t + 1) % 2, 5, i, j] = f5 + omega * (
                    edge * (base + 3.0 * up + 4.5 * up * up) - f5
                )
                f[(t + 1) % 2, 6, i, j] = f6 + omega * (
                    edge * (base - 3.0 * down + 4.5 * down * down) - f6
                )
                f[(t + 1) % 2, 7, i, j] = f7 + omega * (
                    edge * (base - 3.0 * up + 4.5 * up * up) - f7
                )
                f[(t + 1) % 2, 8, i, j] = f8 + omega * (
                    edge * (base + 3.0 * down + 4.5 * down * down) - f8
                )


def arguments(sizes, rng):
    n, m = sizes["n"], sizes["m"]
    weights = np.array([16, 4, 4, 4, 4, 1, 1, 1, 1]) / 36.0
    f = weights[:, None, None] * (1.0 + 0.05 * rng.random((9, n, m)))
    return {"tsteps": sizes["tsteps"], "omega": 1.2, "f": np.stack([f, f])}


def FLOPS(sizes):
    return 120.0 * sizes["tsteps"] * (sizes["n"] - 2) * (sizes["m"] - 2)
