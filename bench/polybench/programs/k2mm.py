"""2mm: D := alpha A B C + beta D, as two matrix products in dot-product form."""

from bench.polybench.sizes import size_table

SIZES = size_table(
    "ni nj nk nl",
    (7, 9, 11, 5),
    (16, 18, 22, 24),
    (40, 50, 70, 80),
    (180, 190, 210, 220),
    (800, 900, 1100, 1200),
    (1600, 1800, 2200, 2400),
)
OUTPUTS = ("D",)
TEMPORARIES = ("tmp",)
TOLERANCE = 1e-10


def k2mm(alpha, beta, tmp, A, B, C, D):
    ni, nk = A.shape
    nj, nl = C.shape
    for i in range(ni):
        for j in range(nj):
            tmp[i, j] = 0.0
            for k in range(nk):
                tmp[i, j] += alpha * A[i, k] * B[k, j]
    for i in range(ni):
        for j in range(nl):
            D[i, j] *= beta
            for k in range(nj):
                D[i, j] += tmp[i, k] * C[k, j]


def arguments(sizes, rng):
    ni, nj, nk, nl = sizes["ni"], sizes["nj"], sizes["nk"], sizes["nl"]
    return {
        "alpha": 1.5,
        "beta": 1.2,
        "tmp": rng.random((ni, nj)),
        "A": rng.random((ni, nk)),
        "B": rng.random((nk, nj)),
        "C": rng.random((nj, nl)),
        "D": rng.random((ni, nl)),
    }


def numpy_form(alpha, beta, tmp, A, B, C, D):
    from scipy.linalg import blas

    blas.dgemm(alpha, B.T, A.T, beta=0.0, c=tmp.T, overwrite_c=True)
    blas.dgemm(1.0, C.T, tmp.T, beta=beta, c=D.T, overwrite_c=True)


def FLOPS(sizes):
    ni, nj, nk, nl = sizes["ni"], sizes["nj"], sizes["nk"], sizes["nl"]
    return 3.0 * ni * nj * nk + 2.0 * ni * nj * nl + ni * nl
