"""jacobi-3d-linear: 7-point Jacobi steps with variable coefficients; linearised in C."""

from bench.polybench.sizes import size_table

SIZES = size_table("tsteps n", (2, 7), (3, 8), (10, 24), (20, 50), (60, 160), (100, 256))
OUTPUTS = ("A", "B")
TEMPORARIES = ()
TOLERANCE = 1e-10


def jacobi_3d_linear(tsteps, K, A, B):
    n = A.shape[0]
    for t in range(tsteps):  # noqa: B007
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                for k in range(1, n - 1):
                    B[i, j, k] = A[i, j, k] + K[i, j, k] * (
                        A[i - 1, j, k]
                        + A[i + 1, j, k]
                        + A[i, j - 1, k]
                        + A[i, j + 1, k]
                        + A[i, j, k - 1]
                        + A[i, j, k + 1]
                        - 6.0 * A[i, j, k]
                    )
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                for k in range(1, n - 1):
                    A[i, j, k] = B[i, j, k]


def arguments(sizes, rng):
    shape = (sizes["n"],) * 3
    return {
        "tsteps": sizes["tsteps"],
        "K": 0.15 * rng.random(shape),
        "A": rng.random(shape) + 0.5,
        "B": rng.random(shape) + 0.5,
    }


def FLOPS(sizes):
    return 9.0 * sizes["tsteps"] * (sizes["n"] - 2) ** 3
