"""doitgen: A[r, q, p] := sum over s of A[r, q, s] C4[s, p], one row buffer."""

from bench.polybench.sizes import size_table

SIZES = size_table(
    "nr nq np",
    (5, 7, 9),
    (10, 8, 12),
    (25, 20, 30),
    (50, 40, 60),
    (150, 140, 160),
    (250, 220, 270),
)
OUTPUTS = ("A",)
TEMPORARIES = ("acc",)
TOLERANCE = 1e-10


def doitgen(A, C4, acc):
    nr, nq, np = A.shape
    for r in range(nr):
        for q in range(nq):
            for p in range(np):
                acc[p] = 0.0
                for s in range(np):
                    acc[p] += A[r, q, s] * C4[s, p]
            for p in range(np):
                A[r, q, p] = acc[p]


def arguments(sizes, rng):
    nr, nq, np = sizes["nr"], sizes["nq"], sizes["np"]
    return {
        "A": rng.random((nr, nq, np)),
        "C4": rng.random((np, np)),
        "acc": rng.random(np),
    }


def numpy_form(A, C4, acc):
    flat = A.reshape(-1, A.shape[2])
    flat[:] = flat @ C4


def FLOPS(sizes):
    return 2.0 * sizes["nr"] * sizes["nq"] * sizes["np"] ** 2
