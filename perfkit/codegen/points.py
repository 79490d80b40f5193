"""Enumerating the integer points of domains in Python, for oracles and tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import islpy as isl

from perfkit.errors import InternalError
from perfkit.ir.affine import Affine, Constraint, Domain, Piece

Point = tuple[int, ...]


def compile_affine(
    affine: Affine, iterators: tuple[str, ...], sizes: Mapping[str, int]
) -> Callable[[Point], int]:
    """A function from points (values of ``iterators``) to the value of the expression."""
    place = {name: k for k, name in enumerate(iterators)}
    const = affine.const
    terms: list[tuple[int, int]] = []
    for name, c in affine.terms:
        if name in place:
            terms.append((place[name], c))
        else:
            const += c * sizes[name]
    divs = [(compile_affine(div.inner, iterators, sizes), div.divisor, c) for div, c in affine.divs]
    if not terms and not divs:
        return lambda point: const
    if not divs and len(terms) == 1:
        (only, factor) = terms[0]
        if factor == 1:
            return lambda point: point[only] + const
        return lambda point: point[only] * factor + const

    def evaluate(point: Point) -> int:
        total = const
        for k, c in terms:
            total += point[k] * c
        for inner, divisor, c in divs:
            total += inner(point) // divisor * c
        return total

    return evaluate


def points(domain: Domain, sizes: Mapping[str, int]) -> list[Point]:
    """Every point of the domain once; the order is lexicographic within each piece."""
    found: dict[Point, None] = {}
    for piece in domain.pieces:
        found.update(dict.fromkeys(_points_of(piece, domain.iterators, sizes)))
    return list(found)


def _points_of(
    piece: Piece, iterators: tuple[str, ...], sizes: Mapping[str, int]
) -> Iterator[Point]:
    fixed = {name: Affine.constant(value) for name, value in sizes.items()}
    constraints = [c.substitute(fixed) for c in piece]
    levels = [_Level(constraints, iterators, k) for k in range(len(iterators))]
    if not all(c.holds({}) for c in constraints if c.expr.is_constant):
        return
    if any(level.unbounded for level in levels):
        box = _box(constraints, iterators)
        if box is None:
            return
        for level, bounds in zip(levels, box, strict=True):
            level.box = bounds
    yield from _extend(levels, ())


def _extend(levels: list[_Level], point: Point) -> Iterator[Point]:
    if len(point) == len(levels):
        yield point
        return
    for value in levels[len(point)].values(point):
        yield from _extend(levels, (*point, value))


class _Level:
    """The constraints that become decidable once the first ``k + 1`` iterators have values."""

    def __init__(self, constraints: list[Constraint], iterators: tuple[str, ...], k: int) -> None:
        name, outer = iterators[k], frozenset(iterators[: k + 1])
        self.lower: list[tuple[Callable[[Point], int], int]] = []
        self.upper: list[tuple[Callable[[Point], int], int]] = []
        self.checks: list[tuple[Callable[[Point], int], bool]] = []
        self.box: tuple[int, int] | None = None
        for c in constraints:
            names = c.expr.names()
            if name not in names or not names <= outer:
                continue
            factor = c.expr.coefficient(name)
            rest = c.expr - Affine.variable(name) * factor
            if name in rest.names() or c.kind == "eq":
                self.checks.append((compile_affine(c.expr, iterators, {}), c.kind == "eq"))
            if name in rest.names() or factor == 0:
                continue
            function = compile_affine(rest, iterators, {})
            for sign in (1, -1) if c.kind == "eq" else (1,):
                if factor * sign > 0:
                    self.lower.append((_scaled(function, sign), factor * sign))
                else:
                    self.upper.append((_scaled(function, sign), -factor * sign))
        self.unbounded = not self.lower or not self.upper

    def values(self, point: Point) -> Iterator[int]:
        low = [-(f(point) // factor) for f, factor in self.lower]  # ceil(-rest / factor)
        high = [f(point) // factor for f, factor in self.upper]
        if self.box is not None:
            low.append(self.box[0])
            high.append(self.box[1])
        for value in range(max(low), min(high) + 1):
            full = (*point, value)
            if all((f(full) == 0) if equal else (f(full) >= 0) for f, equal in self.checks):
                yield value


def _scaled(function: Callable[[Point], int], sign: int) -> Callable[[Point], int]:
    return function if sign == 1 else lambda point: -function(point)


def _box(constraints: list[Constraint], iterators: tuple[str, ...]) -> list[tuple[int, int]] | None:
    """The smallest and largest value of every iterator; None when there is no point."""
    text = str(Domain(iterators, (tuple(constraints),)))
    pieces = isl.Set.read_from_str(isl.Context(), f"{{ [{', '.join(iterators)}] : {text} }}")
    if pieces.is_empty():
        return None
    result = []
    for k, name in enumerate(iterators):
        low, high = pieces.dim_min_val(k), pieces.dim_max_val(k)
        if not (low.is_int() and high.is_int()):
            raise InternalError(f"a domain is unbounded in {name}: {text}")
        result.append((low.to_python(), high.to_python()))
    return result
