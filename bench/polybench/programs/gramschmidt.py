"""gramschmidt: A = Q R by modified Gram-Schmidt; A is overwritten by the residual columns.

The official sizes have more columns than rows, so the residual of every column past the m-th is
rounding noise whatever the data: `defined` names what is numerically meaningful.
"""

import math

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("m n", (11, 7), (20, 30), (60, 80), (200, 240), (1000, 1200), (2000, 2600))
OUTPUTS = ("A", "R", "Q")
TEMPORARIES = ()
TOLERANCE = 1e-9


def gramschmidt(A, R, Q):
    m, n = A.shape
    for k in range(n):
        nrm = 0.0
        for i in range(m):
            nrm += A[i, k] * A[i, k]
        R[k, k] = math.sqrt(nrm)
        for i in range(m):
            Q[i, k] = A[i, k] / R[k, k]
        for j in range(k + 1, n):
            R[k, j] = 0.0
            for i in range(m):
                R[k, j] += Q[i, k] * A[i, j]
            for i in range(m):
                A[i, j] = A[i, j] - Q[i, k] * R[k, j]


def arguments(sizes, rng):
    m, n = sizes["m"], sizes["n"]
    A = rng.standard_normal((m, n)) + 4.0 * math.sqrt(m) * np.eye(m, n)
    return {"A": A, "R": np.zeros((n, n)), "Q": rng.random((m, n))}


def defined(sizes):
    rank = min(sizes["m"], sizes["n"])
    columns = (slice(None), slice(0, rank))
    return {"A": columns, "Q": columns, "R": (slice(0, rank), slice(None))}


def numpy_form(A, R, Q):
    n = A.shape[1]
    for k in range(n):
        R[k, k] = math.sqrt(np.dot(A[:, k], A[:, k]))
        Q[:, k] = A[:, k] / R[k, k]
        np.dot(Q[:, k], A[:, k + 1 :], out=R[k, k + 1 :])
        A[:, k + 1 :] -= np.outer(Q[:, k], R[k, k + 1 :])


def FLOPS(sizes):
    return 2.0 * sizes["m"] * sizes["n"] ** 2
