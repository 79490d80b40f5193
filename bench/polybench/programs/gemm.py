"""gemm: C := alpha A B + beta C."""

from bench.polybench.sizes import size_table

SIZES = size_table(
    "ni nj nk",
    (7, 9, 11),
    (20, 25, 30),
    (60, 70, 80),
    (200, 220, 240),
    (1000, 1100, 1200),
    (2000, 2300, 2600),
)
OUTPUTS = ("C",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def gemm(alpha, beta, C, A, B):
    ni, nj = C.shape
    nk = A.shape[1]
    for i in range(ni):
        for j in range(nj):
            C[i, j] *= beta
        for k in range(nk):
            for j in range(nj):
                C[i, j] += alpha * A[i, k] * B[k, j]


def arguments(sizes, rng):
    ni, nj, nk = sizes["ni"], sizes["nj"], sizes["nk"]
    return {
        "alpha": 1.5,
        "beta": 1.2,
        "C": rng.random((ni, nj)),
        "A": rng.random((ni, nk)),
        "B": rng.random((nk, nj)),
    }


def numpy_form(alpha, beta, C, A, B):
    from scipy.linalg import blas

    blas.dgemm(alpha, B.T, A.T, beta=beta, c=C.T, overwrite_c=True)


def FLOPS(sizes):
    ni, nj, nk = sizes["ni"], sizes["nj"], sizes["nk"]
    return 3.0 * ni * nj * nk + ni * nj
