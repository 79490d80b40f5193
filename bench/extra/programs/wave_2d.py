"""wave-2d: the wave equation in the plane, leapfrog between two time levels."""

from bench.polybench.sizes import size_table

SIZES = size_table("tsteps n", (3, 9), (4, 13), (40, 100), (100, 300), (200, 1200), (400, 2400))
OUTPUTS = ("u", "v")
TEMPORARIES = ()
TOLERANCE = 1e-9


def wave_2d(tsteps, c, u, v):
    n = u.shape[0]
    for t in range(tsteps):  # noqa: B007
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                u[i, j] = (
                    2.0 * v[i, j]
                    - u[i, j]
                    + c * (v[i + 1, j] + v[i - 1, j] + v[i, j + 1] + v[i, j - 1] - 4.0 * v[i, j])
                )
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                v[i, j] = (
                    2.0 * u[i, j]
                    - v[i, j]
                    + c * (u[i + 1, j] + u[i - 1, j] + u[i, j + 1] + u[i, j - 1] - 4.0 * u[i, j])
                )


def arguments(sizes, rng):
    n = sizes["n"]
    u = rng.random((n, n))
    return {"tsteps": sizes["tsteps"], "c": 0.2, "u": u, "v": u.copy()}


def _step(c, a, b):
    m = b[1:-1, 1:-1]
    around = b[2:, 1:-1] + b[:-2, 1:-1] + b[1:-1, 2:] + b[1:-1, :-2]
    a[1:-1, 1:-1] = 2.0 * m - a[1:-1, 1:-1] + c * (around - 4.0 * m)


def numpy_form(tsteps, c, u, v):
    for _ in range(tsteps):
        _step(c, u, v)
        _step(c, v, u)


def FLOPS(sizes):
    return 18.0 * sizes["tsteps"] * (sizes["n"] - 2) ** 2
