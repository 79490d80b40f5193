"""flip: rows reversed, columns mirrored about the anti-diagonal, a palindromic sum."""

from bench.polybench.sizes import size_table

SIZES = size_table("n", (9,), (14,), (120,), (600,), (4000,), (8000,))
OUTPUTS = ("B", "C", "d")
TEMPORARIES = ()
TOLERANCE = 1e-10


def flip(A, B, C, d):
    n = A.shape[0]
    for i in range(n):
        for j in range(n):
            B[n - 1 - i, j] = A[i, j]
            C[n - 1 - j, n - 1 - i] += A[i, j]
    for i in range((n + 1) // 2):
        d[i] = 0.0
        for j in range(n):
            d[i] += B[i, j] * B[n - i - 1, n - j - 1]
        d[n - 1 - i] = d[i]


def arguments(sizes, rng):
    n = sizes["n"]
    return {
        "A": rng.random((n, n)),
        "B": rng.random((n, n)),
        "C": rng.random((n, n)),
        "d": rng.random(n),
    }


def numpy_form(A, B, C, d):
    B[:] = A[::-1]
    C += A[::-1, ::-1].T
    d[:] = (B * B[::-1, ::-1]).sum(axis=1)


def FLOPS(sizes):
    return 2.0 * sizes["n"] ** 2
