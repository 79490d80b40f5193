"""heat-3d: explicit steps of the 3-D heat equation, 7-point stencil, ping-pong between A and B."""

from bench.polybench.sizes import size_table

SIZES = size_table("tsteps n", (2, 7), (20, 10), (40, 20), (100, 40), (500, 120), (1000, 200))
OUTPUTS = ("A", "B")
TEMPORARIES = ()
TOLERANCE = 1e-10


def heat_3d(tsteps, A, B):
    n = A.shape[0]
    for t in range(1, tsteps + 1):  # noqa: B007
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                for k in range(1, n - 1):
                    B[i, j, k] = (
                        0.125 * (A[i + 1, j, k] - 2.0 * A[i, j, k] + A[i - 1, j, k])
                        + 0.125 * (A[i, j + 1, k] - 2.0 * A[i, j, k] + A[i, j - 1, k])
                        + 0.125 * (A[i, j, k + 1] - 2.0 * A[i, j, k] + A[i, j, k - 1])
                        + A[i, j, k]
                    )
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                for k in range(1, n - 1):
                    A[i, j, k] = (
                        0.125 * (B[i + 1, j, k] - 2.0 * B[i, j, k] + B[i - 1, j, k])
                        + 0.125 * (B[i, j + 1, k] - 2.0 * B[i, j, k] + B[i, j - 1, k])
                        + 0.125 * (B[i, j, k + 1] - 2.0 * B[i, j, k] + B[i, j, k - 1])
                        + B[i, j, k]
                    )


def arguments(sizes, rng):
    n = sizes["n"]
    A = rng.random((n, n, n)) + 0.5
    return {"tsteps": sizes["tsteps"], "A": A, "B": A.copy()}


def _step(source, target):
    c = source[1:-1, 1:-1, 1:-1]
    target[1:-1, 1:-1, 1:-1] = (
        0.125 * (source[2:, 1:-1, 1:-1] - 2.0 * c + source[:-2, 1:-1, 1:-1])
        + 0.125 * (source[1:-1, 2:, 1:-1] - 2.0 * c + source[1:-1, :-2, 1:-1])
        + 0.125 * (source[1:-1, 1:-1, 2:] - 2.0 * c + source[1:-1, 1:-1, :-2])
        + c
    )


def numpy_form(tsteps, A, B):
    for _ in range(tsteps):
        _step(A, B)
        _step(B, A)


def FLOPS(sizes):
    return 30.0 * sizes["tsteps"] * (sizes["n"] - 2) ** 3
