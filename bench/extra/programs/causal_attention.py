"""causal-attention: softmax(Q K^T / sqrt(d)) V over earlier positions only (float32)."""

import math

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n d", (9, 7), (12, 5), (80, 32), (200, 64), (1500, 64), (4000, 128))
OUTPUTS = ("out",)
TEMPORARIES = ("S",)
TOLERANCE = 1e-3


def causal_attention(scale, Q, K, V, S, out):
    n, d = Q.shape
    for i in range(n):
        for j in range(i + 1):
            S[i, j] = 0.0
            for k in range(d):
                S[i, j] += Q[i, k] * K[j, k]
            S[i, j] *= scale
    for i in range(n):
        top = S[i, 0]
        for j in range(1, i + 1):
            top = max(top, S[i, j])
        total = 0.0
        for j in range(i + 1):
            S[i, j] = math.exp(S[i, j] - top)
            total += S[i, j]
        for j in range(i + 1):
            S[i, j] /= total
    for i in range(n):
        for k in range(d):
            out[i, k] = 0.0
        for j in range(i + 1):
            for k in range(d):
                out[i, k] += S[i, j] * V[j, k]


def arguments(sizes, rng):
    n, d = sizes["n"], sizes["d"]
    return {
        "scale": np.float32(1.0 / math.sqrt(d)),
        "Q": rng.random((n, d), dtype=np.float32),
        "K": rng.random((n, d), dtype=np.float32),
        "V": rng.random((n, d), dtype=np.float32),
        "S": rng.random((n, n), dtype=np.float32),
        "out": rng.random((n, d), dtype=np.float32),
    }


def numpy_form(scale, Q, K, V, S, out):
    np.matmul(Q, K.T, out=S)
    S *= scale
    S[np.triu_indices(S.shape[0], 1)] = -np.inf
    S -= S.max(axis=1, keepdims=True)
    np.exp(S, out=S)
    S /= S.sum(axis=1, keepdims=True)
    np.matmul(S, V, out=out)


def FLOPS(sizes):
    return 2.0 * sizes["n"] ** 2 * sizes["d"] + 3.0 * sizes["n"] ** 2
