"""covariance: covariance matrix of the columns of data (n samples, m variables)."""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("m n", (7, 9), (28, 32), (80, 100), (240, 260), (1200, 1400), (2600, 3000))
OUTPUTS = ("data", "cov")
TEMPORARIES = ("mean",)
TOLERANCE = 1e-9


def covariance(float_n, data, cov, mean):
    n, m = data.shape
    for j in range(m):
        mean[j] = 0.0
        for i in range(n):
            mean[j] += data[i, j]
        mean[j] /= float_n
    for i in range(n):
        for j in range(m):
            data[i, j] -= mean[j]
    for i in range(m):
        for j in range(i, m):
            cov[i, j] = 0.0
            for k in range(n):
                cov[i, j] += data[k, i] * data[k, j]
            cov[i, j] /= float_n - 1.0
            cov[j, i] = cov[i, j]


def arguments(sizes, rng):
    m, n = sizes["m"], sizes["n"]
    return {
        "float_n": float(n),
        "data": rng.random((n, m)),
        "cov": rng.random((m, m)),
        "mean": rng.random(m),
    }


def numpy_form(float_n, data, cov, mean):
    np.mean(data, axis=0, out=mean)
    data -= mean
    np.dot(data.T, data, out=cov)
    cov /= float_n - 1.0


def FLOPS(sizes):
    m, n = sizes["m"], sizes["n"]
    return 1.0 * m * (m + 1) * n + 2.0 * m * n
