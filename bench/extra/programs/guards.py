"""guards: updates under disjunctions, negations and else branches of affine conditions."""

from bench.polybench.sizes import size_table

SIZES = size_table("n m", (9, 11), (12, 10), (100, 120), (400, 500), (4000, 5000), (8000, 10000))
OUTPUTS = ("A", "B")
TEMPORARIES = ()
TOLERANCE = 1e-10


def guards(A, B):
    n, m = A.shape
    for i in range(n):
        for j in range(m):
            if i >= j or i % 2 == 0:
                A[i, j] = 0.5 * A[i, j] + B[i, j]
            else:
                A[i, j] *= 3.0
            if not (i == j or i + j == n - 1) and j < m - 2:
                B[i, j] -= A[i, j]
            elif i != 0:
                B[i, j] = A[i - 1, j]
    for i in range(1, n):
        for j in range(m):
            if (2 * i + j) % 3 != 1 and 2 * j <= 3 * i:
                A[i, j] /= 2.0
                if j > 0:
                    A[i, j] += A[i - 1, j - 1]


def arguments(sizes, rng):
    shape = sizes["n"], sizes["m"]
    return {"A": rng.random(shape), "B": rng.random(shape)}


def FLOPS(sizes):
    return 3.5 * sizes["n"] * sizes["m"]
