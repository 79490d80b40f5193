"""fraction-bounds: sums over the wedge ceil(i/2) <= j < floor((2i + n)/3)."""

from bench.polybench.sizes import size_table

SIZES = size_table("n", (11,), (16,), (200,), (900,), (5000,), (10000,))
OUTPUTS = ("y", "z")
TEMPORARIES = ()
TOLERANCE = 1e-10


def fraction_bounds(A, y, z):
    n = A.shape[0]
    for i in range(n):
        for j in range((i + 1) // 2, (2 * i + n) // 3):
            y[i] += A[i, j]
            z[j] -= 0.5 * A[i, j]
        for j in range(n // 2, (n + i) // 2):
            z[i // 2] += A[j, i]


def arguments(sizes, rng):
    n = sizes["n"]
    return {"A": rng.random((n, n)), "y": rng.random(n), "z": rng.random(n)}


def FLOPS(sizes):
    return 1.25 * sizes["n"] ** 2
