"""Piecewise affine terms mean what the operations they are built from mean."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.frontends import affine as terms
from perfkit.frontends.affine import Cases, Extreme, NotAffine, Pieces, Term
from perfkit.ir.affine import Affine, Constraint

X, Y = Affine.variable("i"), Affine.variable("j")
POINTS = [{"i": i, "j": j} for i in range(-5, 6, 2) for j in range(-4, 5, 3)]


def evaluate(term: Term, point: dict[str, int]) -> int:
    match term:
        case Affine():
            return term.evaluate(point)
        case Extreme(kind=kind, args=args):
            return (min if kind == "min" else max)(evaluate(a, point) for a in args)
        case Cases(cases=cases):
            chosen = [t for p, t in cases if all(c.holds(point) for c in p)]
            assert len(chosen) == 1, "the cases overlap or leave a hole"
            return evaluate(chosen[0], point)


def holds(pieces: Pieces, point: dict[str, int]) -> bool:
    found = sum(all(c.holds(point) for c in p) for p in pieces)
    assert found <= 1, "the pieces overlap"
    return found == 1


def truncated(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


Pair = tuple[Term, Callable[[dict[str, int]], int]]
LEAVES: st.SearchStrategy[Pair] = st.one_of(
    st.integers(-6, 6).map(lambda k: (Affine.constant(k), lambda p: k)),
    st.sampled_from("ij").map(lambda n: (Affine.variable(n), lambda p: p[n])),
)


def combine(children: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    def build(args: tuple[str, Pair, Pair, int]) -> Pair:
        op, (a, fa), (b, fb), k = args
        match op:
            case "add":
                return terms.add(a, b), lambda p: fa(p) + fb(p)
            case "sub":
                return terms.subtract(a, b), lambda p: fa(p) - fb(p)
            case "scale":
                return terms.scale(a, k), lambda p: fa(p) * k
            case "min":
                return Extreme("min", (a, b)), lambda p: min(fa(p), fb(p))
            case "max":
                return Extreme("max", (a, b)), lambda p: max(fa(p), fb(p))
            case "floordiv":
                return terms.floordiv(a, k), lambda p: fa(p) // k
            case "mod":
                return terms.mod(a, k), lambda p: fa(p) % k
            case "tdiv":
                return terms.tdiv(a, k), lambda p: truncated(fa(p), k)
            case "tmod":
                return terms.tmod(a, k), lambda p: fa(p) - k * truncated(fa(p), k)
            case _:
                return terms.absolute(a), lambda p: abs(fa(p))

    ops = ["add", "sub", "scale", "min", "max", "floordiv", "mod", "tdiv", "tmod", "abs"]
    factors = st.integers(-4, 4).filter(bool)
    return st.tuples(st.sampled_from(ops), children, children, factors).map(build)


TERMS = st.recursive(LEAVES, combine, max_leaves=4)


@settings(max_examples=150, deadline=None)
@given(TERMS)
def test_terms_evaluate_like_integers(pair: Pair) -> None:
    term, expected = pair
    try:
        cases = terms.flatten(term)
    except NotAffine:
        return  # too many case distinctions
    for point in POINTS:
        assert evaluate(term, point) == expected(point)
        assert [a.evaluate(point) for p, a in cases if all(c.holds(point) for c in p)] == [
            expected(point)
        ]


@settings(max_examples=100, deadline=None)
@given(TERMS, TERMS, st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"]))
def test_comparisons_and_negations(a: Pair, b: Pair, op: str) -> None:
    compare = {
        "lt": int.__lt__,
        "le": int.__le__,
        "gt": int.__gt__,
        "ge": int.__ge__,
        "eq": int.__eq__,
        "ne": int.__ne__,
    }[op]
    try:
        pieces = terms.compare(op, a[0], b[0])
        opposite = terms.negation(pieces)
    except NotAffine:
        return
    for point in POINTS:
        expected = compare(a[1](point), b[1](point))
        assert holds(pieces, point) == expected
        assert holds(opposite, point) != expected


def test_disjunction_stays_disjoint() -> None:
    a, b = terms.compare("ge", X, Y), terms.compare("ge", Y, Affine())
    for point in POINTS:
        expected = point["i"] >= point["j"] or point["j"] >= 0
        assert holds(terms.disjunction(a, b), point) == expected


def test_bound_by_minimum_is_one_conjunction() -> None:
    assert len(terms.compare("lt", X, Extreme("min", (Y, Affine.constant(8))))) == 1
    assert len(terms.compare("ge", X, Extreme("min", (Y, Affine.constant(8))))) == 2


def test_products_of_variables_are_refused() -> None:
    assert terms.multiply(X, Affine.constant(3)) == X * 3
    with pytest.raises(NotAffine, match="multiplies"):
        terms.multiply(X, Y)


def test_division_by_zero_is_refused() -> None:
    for divide in (terms.floordiv, terms.tdiv):
        with pytest.raises(NotAffine, match="zero"):
            divide(X, 0)


def test_clamped_subscript_prefers_the_iterator_on_ties() -> None:
    clamp = Extreme("min", (Affine.variable("n") - 1, X + 1))
    cases = {a: p for p, a in terms.flatten(clamp, frozenset({"i"}))}
    assert cases[X + 1] == (Constraint(Affine.variable("n") - X - 2),)
