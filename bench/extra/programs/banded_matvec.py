"""banded-matvec: y = A x, A stored by diagonals, loop bounds clipped by min and max."""

from bench.polybench.sizes import size_table

SIZES = size_table("n k", (11, 3), (17, 5), (1000, 10), (20000, 30), (200000, 100), (400000, 200))
OUTPUTS = ("y",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def banded_matvec(k, A, x, y):
    n = x.shape[0]
    for i in range(n):
        y[i] = 0.0
        for j in range(max(0, i - k), min(n, i + k + 1)):
            y[i] += A[i, j - i + k] * x[j]


def arguments(sizes, rng):
    n, k = sizes["n"], sizes["k"]
    return {"k": k, "A": rng.random((n, 2 * k + 1)), "x": rng.random(n), "y": rng.random(n)}


def FLOPS(sizes):
    return 2.0 * sizes["n"] * (2 * sizes["k"] + 1)
