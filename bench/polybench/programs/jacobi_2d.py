"""jacobi-2d: five-point averaging, ping-pong between A and B."""

from bench.polybench.sizes import size_table

SIZES = size_table("tsteps n", (3, 9), (20, 30), (40, 90), (100, 250), (500, 1300), (1000, 2800))
OUTPUTS = ("A", "B")
TEMPORARIES = ()
TOLERANCE = 1e-10


def jacobi_2d(tsteps, A, B):
    n = A.shape[0]
    for t in range(tsteps):  # noqa: B007
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                B[i, j] = 0.2 * (A[i, j] + A[i, j - 1] + A[i, j + 1] + A[i + 1, j] + A[i - 1, j])
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                A[i, j] = 0.2 * (B[i, j] + B[i, j - 1] + B[i, j + 1] + B[i + 1, j] + B[i - 1, j])


def arguments(sizes, rng):
    n = sizes["n"]
    return {
        "tsteps": sizes["tsteps"],
        "A": rng.random((n, n)) + 0.5,
        "B": rng.random((n, n)) + 0.5,
    }


def _step(a, b):
    b[1:-1, 1:-1] = 0.2 * (a[1:-1, 1:-1] + a[1:-1, :-2] + a[1:-1, 2:] + a[2:, 1:-1] + a[:-2, 1:-1])


def numpy_form(tsteps, A, B):
    for _ in range(tsteps):
        _step(A, B)
        _step(B, A)


def FLOPS(sizes):
    return 10.0 * sizes["tsteps"] * (sizes["n"] - 2) ** 2
