"""Piecewise quasi-affine terms: what bounds, subscripts and conditions of a program mean.

A :data:`Term` is an :class:`Affine`, a minimum or maximum of terms, or a case distinction. Minima
and maxima are kept as such for as long as possible, because ``i < min(a, b)`` is one conjunction,
while the same thing as a case distinction is a union. Everything here is plain algebra; what can
actually happen in a domain is decided by :mod:`perfkit.frontends.prover`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from perfkit.ir.affine import Affine, Constraint, Piece

Pieces = tuple[Piece, ...]
"""A union of conjunctions: no piece is false, one empty piece is true."""

EVERYTHING: Pieces = ((),)
NOTHING: Pieces = ()
MAX_PIECES = 256


@dataclass(frozen=True, slots=True)
class Extreme:
    """The minimum or maximum of ``args``."""

    kind: Literal["min", "max"]
    args: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Cases:
    """One term per condition; the conditions exclude each other and leave nothing out."""

    cases: tuple[tuple[Piece, Term], ...]


Term = Affine | Extreme | Cases
_Change = Callable[[Affine], Term]


class NotAffine(Exception):
    """A value is not (piecewise quasi-)affine; the text says why, in the user's words."""


# -- arithmetic ------------------------------------------------------------------------------


def add(a: Term, b: Term) -> Term:
    match a, b:
        case Affine(), Affine():
            return a + b
        case Extreme(), _:
            return Extreme(a.kind, tuple(add(x, b) for x in a.args))
        case Cases(), _:
            return Cases(tuple((p, add(x, b)) for p, x in a.cases))
        case _:
            return add(b, a)


def scale(a: Term, factor: int) -> Term:
    match a:
        case Affine():
            return a * factor
        case _ if factor == 0:
            return Affine()
        case Extreme(kind=kind):
            flipped: Literal["min", "max"] = "max" if kind == "min" else "min"
            return Extreme(kind if factor > 0 else flipped, tuple(scale(x, factor) for x in a.args))
        case Cases():
            return Cases(tuple((p, scale(x, factor)) for p, x in a.cases))


def subtract(a: Term, b: Term) -> Term:
    return add(a, scale(b, -1))


def multiply(a: Term, b: Term) -> Term:
    """A product; one side must be a constant."""
    for x, y in ((a, b), (b, a)):
        if isinstance(x, Affine) and x.is_constant:
            return scale(y, x.const)
    raise NotAffine("it multiplies two expressions that are not constant")


def floordiv(a: Term, divisor: int) -> Term:
    """``floor(a / divisor)``; the divisor may be negative, not zero."""
    if divisor == 0:
        raise NotAffine("it divides by zero")
    if divisor < 0:
        return floordiv(scale(a, -1), -divisor)
    match a:
        case Affine():
            return a.floordiv(divisor)
        case Extreme():  # floor(x / d) grows with x
            return Extreme(a.kind, tuple(floordiv(x, divisor) for x in a.args))
        case Cases():
            return Cases(tuple((p, floordiv(x, divisor)) for p, x in a.cases))


def mod(a: Term, divisor: int) -> Term:
    """``a - divisor * floor(a / divisor)``: the sign of the divisor, as in Python."""
    return _per_case(a, lambda x: subtract(x, scale(floordiv(x, divisor), divisor)))


def tdiv(a: Term, divisor: int) -> Term:
    """C's division, which rounds towards zero."""
    if divisor == 0:
        raise NotAffine("it divides by zero")
    if divisor < 0:
        return scale(tdiv(a, -divisor), -1)

    def divide(x: Affine) -> Term:
        if x.is_constant:
            sign = -1 if x.const < 0 else 1
            return Affine.constant(sign * (abs(x.const) // divisor))
        if divisor == 1:
            return x
        return Cases(
            (
                ((Constraint(x),), x.floordiv(divisor)),
                ((Constraint(-x - 1),), -(-x).floordiv(divisor)),
            )
        )

    return _per_case(a, divide)


def tmod(a: Term, divisor: int) -> Term:
    """C's remainder, which has the sign of the dividend."""
    return _per_case(a, lambda x: subtract(x, scale(tdiv(x, divisor), divisor)))


def absolute(a: Term) -> Term:
    return Extreme("max", (a, scale(a, -1)))


def choose(condition: Pieces, if_true: Term, if_false: Term) -> Term:
    """``condition ? if_true : if_false``; the pieces of the condition must be disjoint."""
    cases = [(p, if_true) for p in condition] + [(p, if_false) for p in negation(condition)]
    return cases[0][1] if len(cases) == 1 else Cases(tuple(cases))


def _per_case(a: Term, change: _Change) -> Term:
    if isinstance(a, Affine):
        return change(a)
    return Cases(tuple((p, change(x)) for p, x in flatten(a)))


def flatten(
    term: Term, iterators: frozenset[str] = frozenset()
) -> tuple[tuple[Piece, Affine], ...]:
    """Disjoint cases with one plain affine expression each.

    Where two arguments of a minimum or maximum are equal, the one with more of ``iterators`` is
    taken: clamped subscripts then have the largest interior.
    """
    match term:
        case Affine():
            return (((), term),)
        case Cases():
            found = [(p + q, x) for p, inner in term.cases for q, x in flatten(inner, iterators)]
        case Extreme():
            sign = 1 if term.kind == "min" else -1
            found = list(flatten(term.args[0], iterators))
            for arg in term.args[1:]:
                merged = []
                for p, a in found:
                    for q, b in flatten(arg, iterators):
                        tie = len(b.names() & iterators) > len(a.names() & iterators)
                        first = Constraint((b - a) * sign - int(tie))
                        second = Constraint((a - b) * sign - int(not tie))
                        merged += [((*p, *q, first), a), ((*p, *q, second), b)]
                found = _simple(merged)
    return tuple(_simple(found))


def _simple(cases: list[tuple[Piece, Affine]]) -> list[tuple[Piece, Affine]]:
    _limit(len(cases))
    return [(q, x) for p, x in cases for q in simplify([p])]


# -- conditions ------------------------------------------------------------------------------


def at_least_zero(term: Term) -> Pieces:
    """Where ``term >= 0``."""
    match term:
        case Affine():
            return simplify([(Constraint(term),)])
        case Extreme():
            join = conjunction if term.kind == "min" else disjunction
            result = at_least_zero(term.args[0])
            for arg in term.args[1:]:
                result = join(result, at_least_zero(arg))
            return result
        case Cases():
            return tuple(
                q for p, inner in term.cases for q in conjunction((p,), at_least_zero(inner))
            )


def equals_zero(term: Term) -> Pieces:
    return simplify((*p, Constraint(x, "eq")) for p, x in flatten(term))


def compare(op: str, a: Term, b: Term) -> Pieces:
    """Where ``a op b`` holds, for a CompareOp of :mod:`perfkit.ir.expr`; disjoint pieces."""
    match op:
        case "ge":
            return at_least_zero(subtract(a, b))
        case "gt":
            return at_least_zero(add(subtract(a, b), Affine.constant(-1)))
        case "le":
            return compare("ge", b, a)
        case "lt":
            return compare("gt", b, a)
        case "eq":
            return equals_zero(subtract(a, b))
        case "ne":
            return negation(compare("eq", a, b))
    raise ValueError(f"not a comparison: {op}")


def simplify(pieces: Iterable[Piece]) -> Pieces:
    """Drop constraints on constants that hold, pieces with one that does not, and repeats."""
    result: dict[Piece, None] = {}
    for piece in pieces:
        kept = tuple(dict.fromkeys(c for c in piece if not c.expr.is_constant))
        if all(c.holds({}) for c in piece if c.expr.is_constant):
            if not kept:
                return EVERYTHING
            result[kept] = None
    return tuple(result)


def conjunction(a: Pieces, b: Pieces) -> Pieces:
    _limit(len(a) * len(b))
    return simplify(p + q for p in a for q in b)


def disjunction(a: Pieces, b: Pieces) -> Pieces:
    """A union whose pieces stay disjoint: b only where a does not hold."""
    if a == EVERYTHING or b == EVERYTHING:
        return EVERYTHING
    return simplify(a + conjunction(negation(a), b))


def negation(pieces: Pieces) -> Pieces:
    """The complement, in disjoint pieces."""
    result = EVERYTHING
    for piece in pieces:
        result = conjunction(result, _negated_piece(piece))
    return result


def _negated_piece(piece: Piece) -> Pieces:
    result: list[Piece] = []
    for k, constraint in enumerate(piece):
        below = Constraint(-constraint.expr - 1)
        failures = [below]
        if constraint.kind == "eq":
            failures.append(Constraint(constraint.expr - 1))
        result.extend((*piece[:k], failure) for failure in failures)
    return simplify(result)


def _limit(count: int) -> None:
    if count > MAX_PIECES:
        raise NotAffine(f"it needs more than {MAX_PIECES} case distinctions")
