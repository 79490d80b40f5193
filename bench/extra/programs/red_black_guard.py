"""red-black-guard: red-black Gauss-Seidel for Poisson's equation; the colour is an `if`."""

from bench.polybench.sizes import size_table

SIZES = size_table("tsteps n", (3, 9), (3, 12), (20, 100), (60, 300), (100, 1500), (200, 3000))
OUTPUTS = ("u",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def red_black_guard(tsteps, u, rhs):
    n = u.shape[0]
    for t in range(tsteps):  # noqa: B007
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                if (i + j) % 2 == 0:
                    u[i, j] = 0.25 * (
                        u[i - 1, j] + u[i + 1, j] + u[i, j - 1] + u[i, j + 1] - rhs[i, j]
                    )
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                if (i + j) % 2 == 1:
                    u[i, j] = 0.25 * (
                        u[i - 1, j] + u[i + 1, j] + u[i, j - 1] + u[i, j + 1] - rhs[i, j]
                    )


def arguments(sizes, rng):
    n = sizes["n"]
    return {
        "tsteps": sizes["tsteps"],
        "u": rng.random((n, n)) + 0.5,
        "rhs": 0.01 * rng.random((n, n)),
    }


def FLOPS(sizes):
    return 5.0 * sizes["tsteps"] * (sizes["n"] - 2) ** 2
