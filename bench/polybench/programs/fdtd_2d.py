"""fdtd-2d: Maxwell's equations in the plane by finite differences in time (Yee), one source row."""

from bench.polybench.sizes import size_table

SIZES = size_table(
    "tmax nx ny",
    (3, 7, 9),
    (20, 20, 30),
    (40, 60, 80),
    (100, 200, 240),
    (500, 1000, 1200),
    (1000, 2000, 2600),
)
OUTPUTS = ("ex", "ey", "hz")
TEMPORARIES = ()
TOLERANCE = 1e-9


def fdtd_2d(tmax, ex, ey, hz, fict):
    nx, ny = ex.shape
    for t in range(tmax):
        for j in range(ny):
            ey[0, j] = fict[t]
        for i in range(1, nx):
            for j in range(ny):
                ey[i, j] = ey[i, j] - 0.5 * (hz[i, j] - hz[i - 1, j])
        for i in range(nx):
            for j in range(1, ny):
                ex[i, j] = ex[i, j] - 0.5 * (hz[i, j] - hz[i, j - 1])
        for i in range(nx - 1):
            for j in range(ny - 1):
                hz[i, j] = hz[i, j] - 0.7 * (ex[i, j + 1] - ex[i, j] + ey[i + 1, j] - ey[i, j])


def arguments(sizes, rng):
    nx, ny = sizes["nx"], sizes["ny"]
    return {
        "tmax": sizes["tmax"],
        "ex": rng.random((nx, ny)),
        "ey": rng.random((nx, ny)),
        "hz": rng.random((nx, ny)),
        "fict": rng.random(sizes["tmax"]),
    }


def numpy_form(tmax, ex, ey, hz, fict):
    for t in range(tmax):
        ey[0] = fict[t]
        ey[1:] -= 0.5 * (hz[1:] - hz[:-1])
        ex[:, 1:] -= 0.5 * (hz[:, 1:] - hz[:, :-1])
        hz[:-1, :-1] -= 0.7 * (ex[:-1, 1:] - ex[:-1, :-1] + ey[1:, :-1] - ey[:-1, :-1])


def FLOPS(sizes):
    return 11.0 * sizes["tmax"] * sizes["nx"] * sizes["ny"]
