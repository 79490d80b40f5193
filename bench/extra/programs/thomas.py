"""thomas: many tridiagonal systems, one per column, by elimination and back substitution."""

from bench.polybench.sizes import size_table

SIZES = size_table("n m", (9, 7), (12, 10), (100, 120), (400, 500), (2000, 2500), (4000, 5000))
OUTPUTS = ("x",)
TEMPORARIES = ("ratio",)
TOLERANCE = 1e-10


def thomas(lower, diag, upper, x, ratio):
    n, m = x.shape
    for j in range(m):
        ratio[0, j] = upper[0, j] / diag[0, j]
        x[0, j] /= diag[0, j]
        for i in range(1, n):
            pivot = diag[i, j] - lower[i, j] * ratio[i - 1, j]
            ratio[i, j] = upper[i, j] / pivot
            x[i, j] = (x[i, j] - lower[i, j] * x[i - 1, j]) / pivot
        for i in range(n - 2, -1, -1):
            x[i, j] -= ratio[i, j] * x[i + 1, j]


def arguments(sizes, rng):
    shape = sizes["n"], sizes["m"]
    return {
        "lower": rng.random(shape),
        "diag": rng.random(shape) + 3.0,
        "upper": rng.random(shape),
        "x": rng.random(shape) + 0.5,
        "ratio": rng.random(shape),
    }


def numpy_form(lower, diag, upper, x, ratio):
    n = x.shape[0]
    ratio[0] = upper[0] / diag[0]
    x[0] /= diag[0]
    for i in range(1, n):
        pivot = diag[i] - lower[i] * ratio[i - 1]
        ratio[i] = upper[i] / pivot
        x[i] = (x[i] - lower[i] * x[i - 1]) / pivot
    for i in range(n - 2, -1, -1):
        x[i] -= ratio[i] * x[i + 1]


def FLOPS(sizes):
    return 8.0 * sizes["n"] * sizes["m"]
