"""upwind: first-order transport; the sign of the velocity selects the neighbour."""

from bench.polybench.sizes import size_table

SIZES = size_table("tsteps n", (3, 9), (3, 12), (20, 100), (50, 300), (100, 1200), (200, 2400))
OUTPUTS = ("q", "r")
TEMPORARIES = ()
TOLERANCE = 1e-10


def upwind(tsteps, dt, vx, vy, q, r):
    n = q.shape[0]
    for t in range(tsteps):  # noqa: B007
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                gx = q[i, j] - q[i - 1, j] if vx[i, j] > 0.0 else q[i + 1, j] - q[i, j]
                gy = q[i, j] - q[i, j - 1] if vy[i, j] > 0.0 else q[i, j + 1] - q[i, j]
                r[i, j] = q[i, j] - dt * (vx[i, j] * gx + vy[i, j] * gy)
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                q[i, j] = r[i, j]


def arguments(sizes, rng):
    n = sizes["n"]
    return {
        "tsteps": sizes["tsteps"],
        "dt": 0.4,
        "vx": 2.0 * rng.random((n, n)) - 1.0,
        "vy": 2.0 * rng.random((n, n)) - 1.0,
        "q": rng.random((n, n)) + 0.5,
        "r": rng.random((n, n)) + 0.5,
    }


def FLOPS(sizes):
    return 9.0 * sizes["tsteps"] * (sizes["n"] - 2) ** 2
