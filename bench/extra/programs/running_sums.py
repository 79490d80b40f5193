"""running-sums: prefix sums along rows with a scalar, suffix sums along columns with a row."""

from bench.polybench.sizes import size_table

SIZES = size_table("h w", (7, 9), (12, 15), (120, 160), (500, 600), (4000, 5000), (8000, 9000))
OUTPUTS = ("A", "B")
TEMPORARIES = ("below",)
TOLERANCE = 1e-10


def running_sums(A, B, below):
    h, w = A.shape
    for i in range(h):
        total = 0.0
        for j in range(w):
            total += A[i, j]
            A[i, j] = total
    for j in range(w):
        below[j] = 0.0
    for i in range(h - 1, -1, -1):
        for j in range(w):
            below[j] += B[i, j]
            B[i, j] = below[j]


def arguments(sizes, rng):
    shape = sizes["h"], sizes["w"]
    return {"A": rng.random(shape), "B": rng.random(shape), "below": rng.random(shape[1])}


def numpy_form(A, B, below):
    A.cumsum(axis=1, out=A)
    B[::-1].cumsum(axis=0, out=B[::-1])


def FLOPS(sizes):
    return 2.0 * sizes["h"] * sizes["w"]
