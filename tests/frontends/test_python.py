"""The Python frontend: what it takes, every construct against the function itself."""

import math

import numpy as np

from perfkit.analysis.bounds import bounds_check
from perfkit.codegen import interpret
from perfkit.frontends.python import from_function
from tests.frontends.python_harness import agree, matrix, vector

HALF = 0.5
COUNT = 3


# -- loops and sizes -------------------------------------------------------------------------


def test_ranges() -> None:
    def f(A, start, stop):
        for i in range(stop):
            A[i] += 1.0
        for i in range(start, stop):
            A[i] *= 2.0
        for i in range(start, stop, 3):
            A[i] -= 3.0
        for i in range(stop, start, -2):
            A[i] *= A[i - 1]
        for i in reversed(range(stop)):
            A[i] += A[i + 1]
        for i in reversed(range(start, stop, 3)):
            A[i] += A[i + 1]
        for i in reversed(range(stop, start, -2)):
            A[i] -= A[i - 1]

    _, signature = agree(f, vector(), 1, 8)
    assert [(p.name, p.kind) for p in signature.parameters] == [
        ("A", "array"), ("start", "size"), ("stop", "size")
    ]  # fmt: skip
    for start, stop in ((0, 0), (2, 7), (7, 2)):
        agree(f, vector(), start, stop)


def test_names_of_extents() -> None:
    def f(A, B, x):
        n, m = A.shape
        k = B.shape[1]
        for i in range(n):
            for j in range(min(m, k, len(x))):
                A[i, j] += B[i, j] * x[j]

    scop, signature = agree(f, matrix(), matrix(), vector())
    assert signature.sizes == scop.parameters == ("n", "m", "B_0", "k", "x_0")
    assert signature.parameters[0].shape == ("n", "m")
    assert signature.parameters[0].written and not signature.parameters[1].written


def test_one_scop_serves_all_sizes() -> None:
    def f(A):
        n, m = A.shape
        for i in range(1, n):
            for j in range(m - 1):
                A[i, j] += A[i - 1, j + 1]

    scop, signature = from_function(f, matrix())
    for shape in ((0, 0), (1, 4), (6, 3)):
        ours, expected = matrix(*shape), matrix(*shape)
        interpret.call(scop, signature, {"A": ours})
        f(expected)
        np.testing.assert_array_equal(ours, expected)


def test_name_used_twice_is_a_variable() -> None:
    def f(A, B):
        n = A.shape[0]
        for i in range(n):
            A[i] += 1.0
        n = B.shape[0] // 2
        for i in range(n):
            B[i] += 2.0

    scop, _ = agree(f, vector(), vector(6))
    assert {a.name for a in scop.arrays} == {"A", "B"}


def test_assigned_argument() -> None:
    def f(A, n, x):
        n = n - 1
        x = x * 2.0
        for i in range(n):
            A[i] = x

    agree(f, vector(), 8, 1.25)


def test_integers_used_as_data_are_scalars() -> None:
    def f(A, n, shift):
        for i in range(n):
            A[i] = A[i] + shift

    _, signature = agree(f, vector(), 8, -3)
    assert [p.kind for p in signature.parameters] == ["array", "size", "scalar"]
    assert signature.parameters[2].dtype == "int64"


def test_size_conditions() -> None:
    def f(A, n, mode):
        if n > 4 and mode == 2:
            for i in range(n):
                A[i] = 0.0
        elif not (mode > 1 or mode < 1) or n < 2:
            A[0] = 9.0
        else:
            A[1] = 7.0

    for n, mode in ((8, 2), (8, 1), (3, 2), (1, 0)):
        _, signature = agree(f, vector(), n, mode)
        assert signature.sizes == ("A_0", "n", "mode")


def test_asserted_sizes_become_the_context() -> None:
    def f(A, n):
        assert 2 <= n <= A.shape[0]
        for i in range(n):
            A[i] = A[n - 2]

    scop, _ = agree(f, vector(), 5)
    assert not scop.context.contains({"n": 1, "A_0": 9})
    assert bounds_check(scop).violations == ()
    assert "needs" in (bounds_check(scop).problem({"n": 1, "A_0": 9}) or "")


# -- subscripts ------------------------------------------------------------------------------


def test_negative_subscripts_wrap_like_pythons() -> None:
    def f(A, n):
        A[-1] = 5.0
        for i in range(n):
            A[i - 3] += A[-i - 1]
        for i in range(-3, 3):
            A[i] += 1.0

    agree(f, vector(), 9)


def test_subscripts_below_the_array_are_out_of_bounds() -> None:
    def f(A, n):
        for i in range(n):
            A[i - 3] = 1.0

    scop, _ = from_function(f, vector(), 2)
    check = bounds_check(scop)
    assert check.problem({"n": 2, "A_0": 9}) is None
    assert check.problem({"n": 2, "A_0": 2}) is not None  # A[-3] of two elements
    assert check.problem({"n": 9, "A_0": 5}) is not None


def test_chained_and_nested_subscripts() -> None:
    def f(A, B):
        for i in range(A.shape[0]):
            for j in range(A.shape[1]):
                A[i][j] = B[i, j // 2] + B[i][(j + i) % 3]

    agree(f, matrix(4, 5), matrix(4, 5))


# -- values and types ------------------------------------------------------------------------


def test_float32_stays_float32() -> None:
    def f(A, B, w):
        total = 0.0
        for i in range(A.shape[0]):
            total += A[i] * 0.1
            B[i] = total / 3 + math.exp(A[i]) * w + 2 * B[i]

    A, B = vector(dtype="float32"), vector(dtype="float32")
    scop, _ = agree(f, A, B, 1.7)
    assert scop.array("total").dtype == "float32"
    agree(f, A.astype("float64"), B.astype("float64"), 1.7)
    agree(f, A, B.astype("float64"), np.float32(1.7))


def test_integer_arithmetic() -> None:
    def f(X, Y, k):
        for i in range(X.shape[0]):
            X[i] = (X[i] << 2) ^ (X[i] >> 1) | (i & 3)
            Y[i] = X[i] // 3 - Y[i] % 5 + (-Y[i]) // 4 + ~Y[i] + X[i] ** 2
            Y[i] = Y[i] / 3 + k / 4

    values = np.arange(-7, 7, dtype=np.int32)
    agree(f, values, values.astype(np.int64) * 3, 7)


def test_functions() -> None:
    def f(A, B):
        for i in range(A.shape[0]):
            B[i] = math.sqrt(abs(A[i])) + math.sin(A[i]) * np.cos(A[i]) - math.pi * HALF
            B[i] += min(A[i], B[i], 0.25) - max(0, A[i]) + math.floor(A[i]) + round(A[i])
            B[i] += np.sqrt(np.abs(A[i])) + math.pow(abs(A[i]), 1.5) + np.maximum(A[i], B[i])
            B[i] = B[i] * float(COUNT) + np.float32(A[i]) + int(A[i]) + A[i] ** 3 + 2**-1

    agree(f, vector(), vector())


def test_numpy_extremes_propagate_nan_and_pythons_do_not() -> None:
    def f(A, B, C):
        for i in range(A.shape[0]):
            C[i, 0] = np.maximum(A[i], B[i])
            C[i, 1] = np.minimum(A[i], B[i])
            C[i, 2] = max(A[i], B[i])
            C[i, 3] = min(A[i], B[i])
            C[i, 4] = np.fmax(A[i], B[i])

    nan = math.nan
    agree(f, np.array([1.0, nan, 0.0, 2.0]), np.array([nan, 1.0, -0.0, 1.0]), np.zeros((4, 5)))


def test_closure_constants() -> None:
    scale, limit = 0.25, np.float32(2.0)

    def f(A):
        for i in range(COUNT):
            A[i] = A[i] * scale + limit

    agree(f, vector())
    agree(f, vector(dtype="float32"))


def test_conditions_on_data() -> None:
    def f(A, B):
        for i in range(A.shape[0]):
            if A[i] > 0.5 and (i > 2 or A[i] < 2.0):
                A[i] = -A[i]
                B[i] += 1.0
            elif -1.0 < A[i] <= 0.5:
                B[i] = A[i] if i != 3 else 9.0
            flag = A[i] < B[i]
            if not flag:
                B[i] *= 2.0

    agree(f, vector(), vector())


def test_parallel_assignment() -> None:
    def f(A, n):
        a, b = 1.0, 2.0
        for i in range(n):
            a, b = b, a + b
            A[i], A[i + 1] = A[i + 1], A[i] + a
        c = d = 0.5
        A[0] = c + d

    agree(f, vector(), 8)


def test_results() -> None:
    def one(A):
        s = 0.0
        for i in range(A.shape[0]):
            s += A[i]
        return s / A.shape[0]

    def several(A, n: int):
        """Several numbers."""
        best: float = A[0]
        for i in range(1, n):
            best = max(best, A[i])
        return best, n, best > 0.0

    _, signature = agree(one, vector())
    assert [(p.kind, p.dtype) for p in signature.parameters if p.kind == "result"] == [
        ("result", "float64")
    ]
    _, signature = agree(several, vector(dtype="float32"), 9)
    assert [p.dtype for p in signature.parameters if p.kind == "result"] == [
        "float32", "int64", "bool"
    ]  # fmt: skip


def test_scalar_types() -> None:
    def f(A, a, b, c, d):
        for i in range(A.shape[0]):
            A[i] = A[i] * a + b if c else A[i]
            A[i] -= d

    _, signature = agree(f, vector(dtype="float32"), np.float32(0.1), 0.1, True, np.int32(4))
    assert [p.dtype for p in signature.parameters] == [
        "float32", "float32", "float64", "bool", "int32"
    ]  # fmt: skip


def test_duck_typed_arrays() -> None:
    class Dtype:
        def __str__(self) -> str:
            return "torch.float32"

    class Tensor:
        shape = (3, 4)
        dtype = Dtype()

    def f(A):
        for i in range(A.shape[0]):
            A[i, 0] = 1.0

    scop, signature = from_function(f, Tensor())
    assert scop.array("A").dtype == "float32"
    assert signature.parameters[0].rank == 2
