"""jacobi-1d: three-point averaging, ping-pong between A and B."""

from bench.polybench.sizes import size_table

SIZES = size_table("tsteps n", (3, 11), (20, 30), (40, 120), (100, 400), (500, 2000), (1000, 4000))
OUTPUTS = ("A", "B")
TEMPORARIES = ()
TOLERANCE = 1e-10


def jacobi_1d(tsteps, A, B):
    n = A.shape[0]
    for t in range(tsteps):  # noqa: B007
        for i in range(1, n - 1):
            B[i] = 0.33333 * (A[i - 1] + A[i] + A[i + 1])
        for i in range(1, n - 1):
            A[i] = 0.33333 * (B[i - 1] + B[i] + B[i + 1])


def arguments(sizes, rng):
    n = sizes["n"]
    return {"tsteps": sizes["tsteps"], "A": rng.random(n) + 0.5, "B": rng.random(n) + 0.5}


def numpy_form(tsteps, A, B):
    for _ in range(tsteps):
        B[1:-1] = 0.33333 * (A[:-2] + A[1:-1] + A[2:])
        A[1:-1] = 0.33333 * (B[:-2] + B[1:-1] + B[2:])


def FLOPS(sizes):
    return 6.0 * sizes["tsteps"] * (sizes["n"] - 2)
