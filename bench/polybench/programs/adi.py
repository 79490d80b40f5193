"""adi: 2-D heat equation by alternating direction implicit steps (Thomas sweeps)."""

from bench.polybench.sizes import size_table

SIZES = size_table("tsteps n", (3, 9), (20, 20), (40, 60), (100, 200), (500, 1000), (1000, 2000))
OUTPUTS = ("u",)
TEMPORARIES = ("v", "p", "q")
TOLERANCE = 1e-10


def adi(tsteps, u, v, p, q):
    n = u.shape[0]
    dx = 1.0 / n
    dy = 1.0 / n
    dt = 1.0 / tsteps
    mul1 = 2.0 * dt / (dx * dx)
    mul2 = 1.0 * dt / (dy * dy)
    a = -mul1 / 2.0
    b = 1.0 + mul1
    c = a
    d = -mul2 / 2.0
    e = 1.0 + mul2
    f = d
    for t in range(1, tsteps + 1):  # noqa: B007
        for i in range(1, n - 1):
            v[0, i] = 1.0
            p[i, 0] = 0.0
            q[i, 0] = v[0, i]
            for j in range(1, n - 1):
                p[i, j] = -c / (a * p[i, j - 1] + b)
                q[i, j] = (
                    -d * u[j, i - 1] + (1.0 + 2.0 * d) * u[j, i] - f * u[j, i + 1] - a * q[i, j - 1]
                ) / (a * p[i, j - 1] + b)
            v[n - 1, i] = 1.0
            for j in range(n - 2, 0, -1):
                v[j, i] = p[i, j] * v[j + 1, i] + q[i, j]
        for i in range(1, n - 1):
            u[i, 0] = 1.0
            p[i, 0] = 0.0
            q[i, 0] = u[i, 0]
            for j in range(1, n - 1):
                p[i, j] = -f / (d * p[i, j - 1] + e)
                q[i, j] = (
                    -a * v[i - 1, j] + (1.0 + 2.0 * a) * v[i, j] - c * v[i + 1, j] - d * q[i, j - 1]
                ) / (d * p[i, j - 1] + e)
            u[i, n - 1] = 1.0
            for j in range(n - 2, 0, -1):
                u[i, j] = p[i, j] * u[i, j + 1] + q[i, j]


def arguments(sizes, rng):
    n = sizes["n"]
    return {
        "tsteps": sizes["tsteps"],
        "u": rng.random((n, n)) + 0.5,
        "v": rng.random((n, n)),
        "p": rng.random((n, n)),
        "q": rng.random((n, n)),
    }


def numpy_form(tsteps, u, v, p, q):
    n = u.shape[0]
    mul1 = 2.0 / tsteps * n * n
    mul2 = 1.0 / tsteps * n * n
    a, b = -mul1 / 2.0, 1.0 + mul1
    d, e = -mul2 / 2.0, 1.0 + mul2
    inner = slice(1, n - 1)
    for _ in range(tsteps):
        v[0, inner] = 1.0
        p[inner, 0] = 0.0
        q[inner, 0] = 1.0
        for j in range(1, n - 1):
            scale = a * p[inner, j - 1] + b
            p[inner, j] = -a / scale
            right = -d * u[j, : n - 2] + (1.0 + 2.0 * d) * u[j, inner] - d * u[j, 2:]
            q[inner, j] = (right - a * q[inner, j - 1]) / scale
        v[n - 1, inner] = 1.0
        for j in range(n - 2, 0, -1):
            v[j, inner] = p[inner, j] * v[j + 1, inner] + q[inner, j]
        u[inner, 0] = 1.0
        p[inner, 0] = 0.0
        q[inner, 0] = 1.0
        for j in range(1, n - 1):
            scale = d * p[inner, j - 1] + e
            p[inner, j] = -d / scale
            right = -a * v[: n - 2, j] + (1.0 + 2.0 * a) * v[inner, j] - a * v[2:, j]
            q[inner, j] = (right - d * q[inner, j - 1]) / scale
        u[inner, n - 1] = 1.0
        for j in range(n - 2, 0, -1):
            u[inner, j] = p[inner, j] * u[inner, j + 1] + q[inner, j]


def FLOPS(sizes):
    return 30.0 * sizes["tsteps"] * (sizes["n"] - 2) ** 2
