"""heat-ring: heat equation on a ring, periodic ends written as separate statements."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table(
    "tsteps n", (3, 11), (5, 17), (100, 1000), (500, 4000), (2000, 100000), (4000, 200000)
)
OUTPUTS = ("A", "B")
TEMPORARIES = ()
TOLERANCE = 1e-10


def heat_ring(tsteps, A, B):
    n = A.shape[0]
    for t in range(tsteps):  # noqa: B007
        B[0] = 0.25 * A[n - 1] + 0.5 * A[0] + 0.25 * A[1]
        for i in range(1, n - 1):
            B[i] = 0.25 * A[i - 1] + 0.5 * A[i] + 0.25 * A[i + 1]
        B[n - 1] = 0.25 * A[n - 2] + 0.5 * A[n - 1] + 0.25 * A[0]
        for i in range(n):
            A[i] = B[i]


def arguments(sizes, rng):
    n = sizes["n"]
    return {"tsteps": sizes["tsteps"], "A": rng.random(n) + 0.5, "B": rng.random(n)}


def numpy_form(tsteps, A, B):
    for _ in range(tsteps):
        B[:] = 0.25 * np.roll(A, 1) + 0.5 * A + 0.25 * np.roll(A, -1)
        A[:] = B


def FLOPS(sizes):
    return 5.0 * sizes["tsteps"] * sizes["n"]
