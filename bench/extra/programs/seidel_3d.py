"""seidel-3d: seven-point averaging in space, in place (Gauss-Seidel order)."""

from bench.polybench.sizes import size_table

SIZES = size_table("tsteps n", (2, 7), (3, 8), (20, 24), (40, 50), (60, 150), (100, 220))
OUTPUTS = ("A",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def seidel_3d(tsteps, A):
    n = A.shape[0]
    for t in range(tsteps):  # noqa: B007
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                for k in range(1, n - 1):
                    A[i, j, k] = (
                        A[i - 1, j, k]
                        + A[i, j - 1, k]
                        + A[i, j, k - 1]
                        + A[i, j, k]
                        + A[i, j, k + 1]
                        + A[i, j + 1, k]
                        + A[i + 1, j, k]
                    ) / 7.0


def arguments(sizes, rng):
    n = sizes["n"]
    return {"tsteps": sizes["tsteps"], "A": rng.random((n, n, n)) + 0.5}


def FLOPS(sizes):
    return 7.0 * sizes["tsteps"] * (sizes["n"] - 2) ** 3
