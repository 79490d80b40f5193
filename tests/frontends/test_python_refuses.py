"""The Python frontend: what it refuses, and that the message says what and where."""

import numpy as np
import pytest

from perfkit.errors import UnsupportedError
from perfkit.frontends.python import from_function
from tests.frontends.python_harness import agree, matrix, refuse, vector

TABLE = [1, 2, 3]


def test_loop_variable_after_the_loop_is_refused() -> None:
    def f(A):
        for i in range(A.shape[0]):
            A[i] = 1.0
        A[i - 1] = 2.0

    assert "unknown after its loop" in str(refuse(f, vector(), match="i: is not defined"))


def test_reused_loop_variables_are_refused() -> None:
    def nested(A):
        for i in range(3):
            for i in range(3):
                A[i] = 1.0

    def assigned(A):
        for i in range(3):
            i = i + 1
            A[i] = 1.0

    def argument(A, n):
        for n in range(3):
            A[n] = 1.0

    refuse(nested, vector(), match="in use already")
    refuse(assigned, vector(), match="is a loop variable too")
    refuse(argument, vector(), 3, match="hides an argument")


def test_subscripts_that_are_refused() -> None:
    def sliced(A):
        A[1:3] = 0.0

    def row(A):
        A[0] = 1.0

    def fancy(A, k):
        for i in range(3):
            A[k[i]] = 1.0

    def real(A):
        A[1.0] = 1.0

    def product(A, n):
        for i in range(n):
            A[i * n] = 1.0

    def other(A):
        A[TABLE[0]] = 1.0

    refuse(sliced, vector(), match="slices cannot be used")
    refuse(row, matrix(), match="2 dimensions, but 1 subscripts")
    refuse(fancy, vector(), np.array([0, 1, 2]), match="depends on data")
    refuse(real, vector(), match="subscript must be an integer")
    refuse(product, vector(), 4, match="multiplies")
    refuse(other, vector(), match="only array arguments")


def test_variable_of_two_types_is_refused() -> None:
    def f(A, B):
        for i in range(A.shape[0]):
            t = A[i]
            B[i] = t
            t = B[i]
            A[i] = t

    refuse(f, vector(dtype="float32"), vector(), match="use two variables")
    agree(f, vector(), vector())


def test_statements_that_are_refused() -> None:
    def loops(A):
        while A[0] > 0.0:
            A[0] -= 1.0

    def stops(A):
        for i in range(3):
            if A[i] > 0.0:
                break

    def skips(A):
        for i in range(3):
            if A[i] > 0.0:
                continue

    def over(A):
        for x in A:
            A[0] = x

    def otherwise(A):
        for i in range(3):
            A[i] = 1.0
        else:
            A[0] = 2.0

    def early(A):
        if A[0] > 0.0:
            return 1.0
        A[0] = 1.0

    def nothing(A):
        pass

    refuse(loops, vector(), match="while loop")
    refuse(stops, vector(), match="break")
    refuse(skips, vector(), match="continue")
    refuse(over, vector(), match=r"only|range")
    refuse(otherwise, vector(), match="else")
    refuse(early, vector(), match="return")
    refuse(nothing, vector(), match="no assignment")


def test_values_that_are_refused() -> None:
    def helper(x):
        return x + 1.0

    def calls(A):
        A[0] = helper(A[0])

    def whole(A):
        A[0] = np.sum(A)

    def lists(A):
        x = [1, 2]  # noqa: F841
        A[0] = 1.0

    def text(A):
        A[0] = "x"

    def returns(A):
        A[0] = 1.0
        return A

    def outside(A):
        A[0] = TABLE

    def rebinds(A):
        A = 1.0  # noqa: F841

    def unknown(A):
        A[0] = undefined_name  # noqa: F821

    def unset(A):
        for i in range(3):
            A[i] = t  # noqa: F821
            t = 1.0  # noqa: F841

    refuse(calls, vector(), match="cannot be called")
    refuse(whole, vector(), match="whole array|cannot be called")
    refuse(lists, vector(), match="cannot be optimized")
    refuse(text, vector(), match="cannot be optimized")
    refuse(returns, vector(), match="in place")
    refuse(outside, vector(), match="only numbers")
    refuse(rebinds, vector(), match="array argument")
    refuse(unknown, vector(), match="not defined")
    error = refuse(unset, vector(), match="t: is read before")
    assert error.location.line == unset.__code__.co_firstlineno + 2


def test_arguments_that_are_refused() -> None:
    def f(A):
        A[0] = 1.0

    def stars(*A):
        A[0] = 1.0

    refuse(f, [1.0, 2.0], match="list is neither an array nor a number")
    refuse(f, np.array([1j]), match="complex128")
    refuse(f, np.array(1.0), match="no dimension")
    refuse(stars, vector(), match=r"\*args")
    with pytest.raises(TypeError):
        from_function(f)
    with pytest.raises(UnsupportedError, match="not a Python function"):
        from_function(len, vector())
    with pytest.raises(UnsupportedError, match="not a plain def"):
        from_function(lambda A: A, vector())
