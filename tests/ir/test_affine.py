"""Affine expressions: algebra against integers, canonical form, domains."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.ir.affine import Affine, Constraint, Domain

NAMES = "abc"
SMALL = st.integers(-6, 6)
POINT = st.fixed_dictionaries({name: SMALL for name in NAMES})
LEAF = st.one_of(SMALL.map(Affine.constant), st.sampled_from(NAMES).map(Affine.variable))
AFFINE = st.recursive(
    LEAF,
    lambda e: st.one_of(
        st.builds(Affine.__add__, e, e),
        st.builds(Affine.__sub__, e, e),
        st.builds(Affine.__mul__, e, SMALL),
        st.builds(Affine.floordiv, e, st.integers(1, 5)),
        st.builds(Affine.mod, e, st.integers(1, 5)),
    ),
    max_leaves=6,
)


@given(AFFINE, AFFINE, SMALL, POINT)
def test_algebra(a: Affine, b: Affine, k: int, point: dict[str, int]) -> None:
    x, y = a.evaluate(point), b.evaluate(point)
    assert (a + b).evaluate(point) == x + y
    assert (a - b).evaluate(point) == x - y
    assert (a * k).evaluate(point) == x * k
    assert (k - a).evaluate(point) == k - x


@given(AFFINE, st.integers(1, 7), POINT)
def test_division(a: Affine, d: int, point: dict[str, int]) -> None:
    x = a.evaluate(point)
    assert a.floordiv(d).evaluate(point) == x // d
    assert a.mod(d).evaluate(point) == x % d


@given(AFFINE, AFFINE, POINT)
def test_substitution_commutes_with_evaluation(a: Affine, b: Affine, point: dict[str, int]) -> None:
    inner = b.evaluate(point)
    assert a.substitute({"a": b}).evaluate(point) == a.evaluate({**point, "a": inner})


@given(AFFINE, AFFINE)
def test_equal_sums_have_one_form(a: Affine, b: Affine) -> None:
    assert a + b == b + a
    assert a - a == Affine()
    assert (a + b) - b == a
    assert str(a + b) == str(b + a)


def test_division_must_be_positive() -> None:
    assert Affine.constant(7).floordiv(2) == Affine.constant(3)
    with pytest.raises(ValueError, match="positive"):
        Affine.variable("a").floordiv(0)


@given(AFFINE, AFFINE, POINT)
def test_intersection_is_conjunction(a: Affine, b: Affine, point: dict[str, int]) -> None:
    left = Domain(("a", "b", "c"), ((Constraint(a),), (Constraint(b, "eq"),)))
    right = ((Constraint(b),), (Constraint(a, "eq"),))
    both = left.intersect(right)
    expected = left.contains(point) and Domain(left.iterators, right).contains(point)
    assert both.contains(point) == expected


def test_no_piece_is_nothing_and_an_empty_piece_everything() -> None:
    assert not Domain(("a",), ()).contains({"a": 0})
    assert Domain(("a",)).contains({"a": 0})
    assert str(Domain(("a",), ())) == "false" and str(Domain(("a",))) == "(true)"
