"""Bounds preconditions: exact for every small size, and told in the user's terms."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.analysis.bounds import bounds_check, bounds_violations
from perfkit.codegen.points import points
from perfkit.frontends.python import from_function
from perfkit.ir.scop import Scop


def stencil(A, B, k):
    n = A.shape[0]
    for i in range(k, n - k):
        B[i] = A[i - k] + A[i + k]


def triangle(A, B):
    n = B.shape[0]
    for i in range(n):
        for j in range(i // 2, i + 1):
            B[i] += A[i - j, 2 * j]


def corner(A, B):
    n, m = A.shape
    A[n - 1, 0] = B[m // 2]


def lower(function: Callable[..., Any], *args: Any) -> Scop:
    return from_function(function, *args)[0]


PROGRAMS = {
    "stencil": lower(stencil, np.zeros(5), np.zeros(5), 1),
    "triangle": lower(triangle, np.zeros((5, 5)), np.zeros(5)),
    "corner": lower(corner, np.zeros((3, 3)), np.zeros(3)),
}


def breaks(scop: Scop, sizes: dict[str, int]) -> bool:
    """Whether some instance of some access leaves its array, by looking at all of them."""
    for s in scop.statements:
        for point in points(s.domain, sizes):
            values = {**sizes, **dict(zip(s.iterators, point, strict=True))}
            for access in (s.write, *s.reads):
                shape = scop.array(access.array).shape
                for index, extent in zip(access.indices, shape, strict=True):
                    if not 0 <= index.evaluate(values) < extent.evaluate(sizes):
                        return True
    return False


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(sorted(PROGRAMS)), st.data())
def test_violations_are_exact(name: str, data: st.DataObject) -> None:
    scop = PROGRAMS[name]
    sizes = {p: data.draw(st.integers(0, 7), label=p) for p in scop.parameters}
    assert (bounds_check(scop).problem(sizes) is not None) == breaks(scop, sizes)


def test_message_names_the_place_and_the_sizes() -> None:
    message = bounds_check(PROGRAMS["stencil"]).problem({"n": 9, "B_0": 4, "k": 1})
    assert message is not None
    assert f"{__file__}:" in message and "B[i]" in message and "B_0 = 4" in message


def test_context_is_checked() -> None:
    message = bounds_check(PROGRAMS["stencil"]).problem({"n": 9, "B_0": 9, "k": -1})
    assert message is not None and "the program needs" in message and "k = -1" in message


def test_each_condition_is_listed_once() -> None:
    violations = bounds_violations(PROGRAMS["stencil"])
    assert len({(v.array, v.dimension, v.condition) for v in violations}) == len(violations)
    assert all(v.certain for v in violations)


def test_access_under_a_condition_on_data_is_uncertain() -> None:
    def f(A, B):
        for i in range(A.shape[0]):
            if A[i] > 0.0:
                B[i] = A[i]

    found = {v.array: v.certain for v in bounds_violations(lower(f, np.zeros(4), np.zeros(4)))}
    assert found == {"B": False}


@pytest.mark.parametrize("n", [0, 1, 5])
def test_proved_program_has_no_violation(n: int) -> None:
    def f(A):
        for i in range(1, A.shape[0]):
            A[i] = A[i - 1]

    check = bounds_check(lower(f, np.zeros(4)))
    assert check.violations == () and check.problem({"A_0": n}) is None
