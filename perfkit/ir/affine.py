"""Quasi-affine integer expressions and the integer sets that they bound.

An :class:`Affine` is ``const + sum(c * name) + sum(c * floor(inner / d))``: plain, hashable data
with a canonical form, so two equal texts are one key. isl objects are made from it on demand
(:mod:`perfkit.ir.isl`) and are never stored in the IR.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class FloorDiv:
    """``floor(inner / divisor)`` with ``divisor > 0``."""

    inner: Affine
    divisor: int

    def __str__(self) -> str:
        return f"floor(({self.inner})/{self.divisor})"


@dataclass(frozen=True, slots=True)
class Affine:
    """A quasi-affine expression over named integers, in canonical form.

    Build it with :meth:`constant`, :meth:`variable` and the operators; the tuples are sorted and
    hold no zero coefficient.
    """

    terms: tuple[tuple[str, int], ...] = ()
    const: int = 0
    divs: tuple[tuple[FloorDiv, int], ...] = ()

    @staticmethod
    def constant(value: int) -> Affine:
        return Affine((), int(value))

    @staticmethod
    def variable(name: str) -> Affine:
        return Affine(((name, 1),))

    @staticmethod
    def build(
        terms: Mapping[str, int], const: int = 0, divs: Mapping[FloorDiv, int] | None = None
    ) -> Affine:
        return Affine(
            tuple(sorted((n, c) for n, c in terms.items() if c)),
            const,
            tuple(sorted(((d, c) for d, c in (divs or {}).items() if c), key=lambda p: str(p[0]))),
        )

    # -- arithmetic --------------------------------------------------------------------------

    def __add__(self, other: Affine | int) -> Affine:
        if isinstance(other, int):
            return Affine(self.terms, self.const + other, self.divs)
        terms = dict(self.terms)
        for name, c in other.terms:
            terms[name] = terms.get(name, 0) + c
        divs = dict(self.divs)
        for div, c in other.divs:
            divs[div] = divs.get(div, 0) + c
        return Affine.build(terms, self.const + other.const, divs)

    __radd__ = __add__

    def __neg__(self) -> Affine:
        return self * -1

    def __sub__(self, other: Affine | int) -> Affine:
        return self + (-other)

    def __rsub__(self, other: int) -> Affine:
        return -self + other

    def __mul__(self, factor: int) -> Affine:
        if factor == 0:
            return Affine()
        return Affine(
            tuple((n, c * factor) for n, c in self.terms),
            self.const * factor,
            tuple((d, c * factor) for d, c in self.divs),
        )

    __rmul__ = __mul__

    def floordiv(self, divisor: int) -> Affine:
        """``floor(self / divisor)`` for ``divisor > 0``, simplified where it is exact."""
        if divisor <= 0:
            raise ValueError(f"floor division by {divisor}: the divisor must be positive")
        if divisor == 1:
            return self
        if not self.terms and not self.divs:
            return Affine.constant(self.const // divisor)
        if all(c % divisor == 0 for _, c in self.terms) and all(
            c % divisor == 0 for _, c in self.divs
        ):
            return Affine(
                tuple((n, c // divisor) for n, c in self.terms),
                self.const // divisor,
                tuple((d, c // divisor) for d, c in self.divs),
            )
        if not self.terms and len(self.divs) == 1 and self.divs[0][1] == 1:
            # floor((floor(a/b) + c)/d) == floor((a + b c)/(b d))
            div = self.divs[0][0]
            return (div.inner + div.divisor * self.const).floordiv(div.divisor * divisor)
        return Affine(divs=((FloorDiv(self, divisor), 1),))

    def mod(self, divisor: int) -> Affine:
        """``self - divisor * floor(self / divisor)``, in ``[0, divisor)``."""
        return self - self.floordiv(divisor) * divisor

    # -- questions ---------------------------------------------------------------------------

    @property
    def is_constant(self) -> bool:
        return not self.terms and not self.divs

    @property
    def is_linear(self) -> bool:
        return not self.divs

    def coefficient(self, name: str) -> int:
        """The coefficient of ``name`` outside any floor."""
        return dict(self.terms).get(name, 0)

    def names(self) -> frozenset[str]:
        """Every variable that the expression mentions, inside floors too."""
        found = {n for n, _ in self.terms}
        for div, _ in self.divs:
            found |= div.inner.names()
        return frozenset(found)

    def evaluate(self, values: Mapping[str, int]) -> int:
        total = self.const + sum(c * values[n] for n, c in self.terms)
        return total + sum(c * (d.inner.evaluate(values) // d.divisor) for d, c in self.divs)

    def substitute(self, mapping: Mapping[str, Affine]) -> Affine:
        """Replace variables by expressions, all at once."""
        result = Affine.constant(self.const)
        for name, c in self.terms:
            result = result + mapping.get(name, Affine.variable(name)) * c
        for div, c in self.divs:
            result = result + div.inner.substitute(mapping).floordiv(div.divisor) * c
        return result

    def rename(self, mapping: Mapping[str, str]) -> Affine:
        return self.substitute({old: Affine.variable(new) for old, new in mapping.items()})

    def __str__(self) -> str:
        parts: list[str] = []
        for text, c in [(n, c) for n, c in self.terms] + [(str(d), c) for d, c in self.divs]:
            sign = "-" if c < 0 else "+"
            body = text if abs(c) == 1 else f"{abs(c)}*{text}"
            parts.append(f"{sign} {body}" if parts else (f"-{body}" if c < 0 else body))
        if self.const or not parts:
            if parts:
                parts.append(f"{'-' if self.const < 0 else '+'} {abs(self.const)}")
            else:
                parts.append(str(self.const))
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Constraint:
    """``expr >= 0`` or ``expr == 0`` over the integers."""

    expr: Affine
    kind: Literal["ge", "eq"] = "ge"

    def holds(self, values: Mapping[str, int]) -> bool:
        value = self.expr.evaluate(values)
        return value >= 0 if self.kind == "ge" else value == 0

    def substitute(self, mapping: Mapping[str, Affine]) -> Constraint:
        return Constraint(self.expr.substitute(mapping), self.kind)

    def __str__(self) -> str:
        return f"{self.expr} {'>=' if self.kind == 'ge' else '='} 0"


Piece = tuple[Constraint, ...]


@dataclass(frozen=True, slots=True)
class Domain:
    """A union of conjunctions of constraints over ``iterators`` and parameters.

    No piece at all is the empty set; one empty piece is everything.
    """

    iterators: tuple[str, ...]
    pieces: tuple[Piece, ...] = ((),)

    def intersect(self, pieces: Iterable[Piece]) -> Domain:
        """Intersect with a union of conjunctions."""
        others = tuple(pieces)
        merged = tuple(tuple(dict.fromkeys(a + b)) for a in self.pieces for b in others)
        return Domain(self.iterators, merged)

    def where(self, *constraints: Constraint) -> Domain:
        return self.intersect([constraints])

    def contains(self, values: Mapping[str, int]) -> bool:
        return any(all(c.holds(values) for c in piece) for piece in self.pieces)

    def map_constraints(self, change: Callable[[Constraint], Constraint]) -> Domain:
        return Domain(self.iterators, tuple(tuple(change(c) for c in p) for p in self.pieces))

    def names(self) -> frozenset[str]:
        return frozenset(n for p in self.pieces for c in p for n in c.expr.names())

    def __str__(self) -> str:
        if not self.pieces:
            return "false"
        return " or ".join(
            "(" + (" and ".join(str(c) for c in p) or "true") + ")" for p in self.pieces
        )
