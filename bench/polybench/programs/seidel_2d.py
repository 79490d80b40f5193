"""seidel-2d: nine-point averaging in place (Gauss-Seidel order)."""

from bench.polybench.sizes import size_table

SIZES = size_table("tsteps n", (3, 9), (20, 40), (40, 120), (100, 400), (500, 2000), (1000, 4000))
OUTPUTS = ("A",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def seidel_2d(tsteps, A):
    n = A.shape[0]
    for t in range(tsteps):  # noqa: B007
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                A[i, j] = (
                    A[i - 1, j - 1]
                    + A[i - 1, j]
                    + A[i - 1, j + 1]
                    + A[i, j - 1]
                    + A[i, j]
                    + A[i, j + 1]
                    + A[i + 1, j - 1]
                    + A[i + 1, j]
                    + A[i + 1, j + 1]
                ) / 9.0


def arguments(sizes, rng):
    n = sizes["n"]
    return {"tsteps": sizes["tsteps"], "A": rng.random((n, n)) + 0.5}


def FLOPS(sizes):
    return 9.0 * sizes["tsteps"] * (sizes["n"] - 2) ** 2
