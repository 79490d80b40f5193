"""wave-3d: the wave equation in space; the time level is an index taken modulo two."""

from bench.polybench.sizes import size_table

SIZES = size_table("tsteps n", (3, 7), (4, 8), (20, 24), (50, 50), (100, 160), (200, 256))
OUTPUTS = ("u",)
TEMPORARIES = ()
TOLERANCE = 1e-9


def wave_3d(tsteps, c, u):
    n = u.shape[1]
    for t in range(tsteps):
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                for k in range(1, n - 1):
                    u[(t + 1) % 2, i, j, k] = (
                        2.0 * u[t % 2, i, j, k]
                        - u[(t + 1) % 2, i, j, k]
                        + c
                        * (
                            u[t % 2, i + 1, j, k]
                            + u[t % 2, i - 1, j, k]
                            + u[t % 2, i, j + 1, k]
                            + u[t % 2, i, j - 1, k]
                            + u[t % 2, i, j, k + 1]
                            + u[t % 2, i, j, k - 1]
                            - 6.0 * u[t % 2, i, j, k]
                        )
                    )


def arguments(sizes, rng):
    n = sizes["n"]
    u = rng.random((2, n, n, n))
    u[1] = u[0]
    return {"tsteps": sizes["tsteps"], "c": 0.1, "u": u}


def FLOPS(sizes):
    return 11.0 * sizes["tsteps"] * (sizes["n"] - 2) ** 3
