"""blocked-gemm: C += A B, already blocked by hand in steps of 16."""

from bench.polybench.sizes import size_table

SIZES = size_table(
    "ni nj nk",
    (7, 19, 11),
    (17, 9, 18),
    (60, 70, 80),
    (200, 220, 240),
    (800, 900, 1000),
    (2000, 2300, 2600),
)
OUTPUTS = ("C",)
TEMPORARIES = ()
TOLERANCE = 1e-10


def blocked_gemm(C, A, B):
    ni, nj = C.shape
    nk = A.shape[1]
    for ii in range(0, ni, 16):
        for kk in range(0, nk, 16):
            for i in range(ii, min(ii + 16, ni)):
                for k in range(kk, min(kk + 16, nk)):
                    for j in range(nj):
                        C[i, j] += A[i, k] * B[k, j]


def arguments(sizes, rng):
    ni, nj, nk = sizes["ni"], sizes["nj"], sizes["nk"]
    return {"C": rng.random((ni, nj)), "A": rng.random((ni, nk)), "B": rng.random((nk, nj))}


def numpy_form(C, A, B):
    from scipy.linalg import blas

    blas.dgemm(1.0, B.T, A.T, beta=1.0, c=C.T, overwrite_c=True)


def FLOPS(sizes):
    return 2.0 * sizes["ni"] * sizes["nj"] * sizes["nk"]
