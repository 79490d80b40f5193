"""red-black-strided: red-black Gauss-Seidel with colour loop and loops of step two."""

from bench.polybench.sizes import size_table

SIZES = size_table("tsteps n", (3, 9), (3, 12), (20, 100), (60, 300), (100, 1500), (200, 3000))
OUTPUTS = ("u",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def red_black_strided(tsteps, u, rhs):
    n = u.shape[0]
    for t in range(tsteps):  # noqa: B007
        for c in range(2):
            for i in range(1, n - 1):
                for j in range(1 + (i + c + 1) % 2, n - 1, 2):
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


def _colour(u, rhs, a, b):
    """The points (1 + a + 2i, 1 + b + 2j)."""
    n = u.shape[0]
    rows, cols = slice(1 + a, n - 1, 2), slice(1 + b, n - 1, 2)
    above, below = slice(a, n - 2, 2), slice(2 + a, n, 2)
    left, right = slice(b, n - 2, 2), slice(2 + b, n, 2)
    around = u[above, cols] + u[below, cols] + u[rows, left] + u[rows, right]
    u[rows, cols] = 0.25 * (around - rhs[rows, cols])


def numpy_form(tsteps, u, rhs):
    for _ in range(tsteps):
        for a, b in ((0, 0), (1, 1), (0, 1), (1, 0)):
            _colour(u, rhs, a, b)


def FLOPS(sizes):
    return 5.0 * sizes["tsteps"] * (sizes["n"] - 2) ** 2
