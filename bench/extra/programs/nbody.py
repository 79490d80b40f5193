"""nbody: softened gravitational accelerations of all pairs."""

import math

from bench.polybench.sizes import size_table

SIZES = size_table("n", (11,), (16,), (100,), (500,), (8000,), (16000,))
OUTPUTS = ("acc",)
TEMPORARIES = ()
TOLERANCE = 1e-9


def nbody(soft, mass, pos, acc):
    n = mass.shape[0]
    for i in range(n):
        ax = 0.0
        ay = 0.0
        az = 0.0
        for j in range(n):
            dx = pos[j, 0] - pos[i, 0]
            dy = pos[j, 1] - pos[i, 1]
            dz = pos[j, 2] - pos[i, 2]
            d2 = dx * dx + dy * dy + dz * dz + soft
            s = mass[j] / (d2 * math.sqrt(d2))
            ax += s * dx
            ay += s * dy
            az += s * dz
        acc[i, 0] = ax
        acc[i, 1] = ay
        acc[i, 2] = az


def arguments(sizes, rng):
    n = sizes["n"]
    return {
        "soft": 0.01,
        "mass": (rng.random(n) + 0.5) / n,
        "pos": rng.random((n, 3)),
        "acc": rng.random((n, 3)),
    }


def FLOPS(sizes):
    return 18.0 * sizes["n"] ** 2
