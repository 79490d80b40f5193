"""correlation: Pearson correlation matrix of the columns of data (n samples, m variables).

Column m // 2 of the input is nearly constant, so that the guard on small deviations is taken.
"""

import math

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("m n", (7, 9), (28, 32), (80, 100), (240, 260), (1200, 1400), (2600, 3000))
OUTPUTS = ("data", "corr")
TEMPORARIES = ("mean", "stddev")
TOLERANCE = 1e-9


def correlation(float_n, data, corr, mean, stddev):
    n, m = data.shape
    eps = 0.1
    for j in range(m):
        mean[j] = 0.0
        for i in range(n):
            mean[j] += data[i, j]
        mean[j] /= float_n
    for j in range(m):
        stddev[j] = 0.0
        for i in range(n):
            stddev[j] += (data[i, j] - mean[j]) * (data[i, j] - mean[j])
        stddev[j] /= float_n
        stddev[j] = math.sqrt(stddev[j])
        stddev[j] = 1.0 if stddev[j] <= eps else stddev[j]
    for i in range(n):
        for j in range(m):
            data[i, j] -= mean[j]
            data[i, j] /= math.sqrt(float_n) * stddev[j]
    for i in range(m - 1):
        corr[i, i] = 1.0
        for j in range(i + 1, m):
            corr[i, j] = 0.0
            for k in range(n):
                corr[i, j] += data[k, i] * data[k, j]
            corr[j, i] = corr[i, j]
    corr[m - 1, m - 1] = 1.0


def arguments(sizes, rng):
    m, n = sizes["m"], sizes["n"]
    data = rng.random((n, m))
    data[:, m // 2] *= 0.01
    return {
        "float_n": float(n),
        "data": data,
        "corr": rng.random((m, m)),
        "mean": rng.random(m),
        "stddev": rng.random(m),
    }


def numpy_form(float_n, data, corr, mean, stddev):
    np.mean(data, axis=0, out=mean)
    data -= mean
    np.sqrt(np.einsum("ij,ij->j", data, data) / float_n, out=stddev)
    stddev[stddev <= 0.1] = 1.0
    data /= math.sqrt(float_n) * stddev
    np.dot(data.T, data, out=corr)
    np.fill_diagonal(corr, 1.0)


def FLOPS(sizes):
    m, n = sizes["m"], sizes["n"]
    return 1.0 * m * (m - 1) * n + 8.0 * m * n
