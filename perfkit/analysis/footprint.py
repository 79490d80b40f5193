"""How far accesses move and how much memory loops touch, as plain numbers.

Three questions, each over a SCoP and a loop tree: how the indices of an access change when a loop
advances (:func:`walks`), how many iterations loops have at given sizes (:class:`Trips`), and how
much data one run of a loop's iterations touches (:func:`footprints`). The numbers are estimates for
choosing between schedules, never a proof.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod

import islpy as isl

from perfkit.ir.affine import Affine, Constraint, Domain
from perfkit.ir.expr import ITEMSIZE, Access
from perfkit.ir.isl import Polyhedra, budget_errors, constraints_on
from perfkit.ir.scop import Array, Scop, Statement
from perfkit.ir.tree import Node, enclosing

CACHE_LINE = 64
WRITE = -1
"""``Walk.position`` of a statement's write; loads count from 0."""

# -- strides ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Walk:
    """How one access moves when ``loop`` advances by one and the loops outside stay.

    ``steps`` holds the change of every index, outermost dimension first. A tile loop moves by the
    size of its tiles. Loops inside that walk the same way are taken to keep their offset.
    """

    statement: str
    position: int
    array: str
    loop: str
    steps: tuple[Fraction, ...]

    @property
    def is_invariant(self) -> bool:
        return not any(self.steps)

    @property
    def is_unit(self) -> bool:
        """Next to each other in memory: what a vector load wants."""
        return bool(self.steps) and abs(self.steps[-1]) == 1 and not any(self.steps[:-1])

    def stride(self, shape: Sequence[int]) -> float:
        """The distance in elements, for an array of this shape in row-major order."""
        total, weight = Fraction(0), 1
        for step, extent in zip(reversed(self.steps), reversed(shape), strict=True):
            total += step * weight
            weight *= max(1, extent)
        return float(total)


def accesses(statement: Statement) -> Iterator[tuple[int, Access]]:
    """The write (position -1) and the distinct loads (their first position) of a statement."""
    yield WRITE, statement.write
    for access in dict.fromkeys(statement.reads):
        yield statement.reads.index(access), access


def walks(scop: Scop, tree: Node) -> tuple[Walk, ...]:
    """One entry for every statement, distinct access and loop around it, outer loops first."""
    found: list[Walk] = []
    for statement in scop.statements:
        around = enclosing(tree, statement.name)
        moved = steps(statement, tuple(x.expression(statement.name) for x in around))
        for position, access in accesses(statement):
            for loop, change in zip(around, moved[position], strict=True):
                found.append(Walk(statement.name, position, access.array, loop.name, change))
    return tuple(found)


def steps(
    statement: Statement, values: tuple[Affine, ...]
) -> dict[int, tuple[tuple[Fraction, ...], ...]]:
    """Per access position and loop, how its indices change when the loop advances by one.

    ``values`` are the statement's expressions in the loops around it, outermost first.
    """
    moves = iterator_moves(statement.iterators, values)
    return {
        position: tuple(tuple(_change(i, move) for i in access.indices) for move in moves)
        for position, access in accesses(statement)
    }


_TILE = 8
"""A step of at most 1/8 of a floor's divisor is taken to stay inside the tile."""


def _change(expr: Affine, move: Mapping[str, Fraction]) -> Fraction:
    total = sum((c * move.get(name, Fraction(0)) for name, c in expr.terms), Fraction(0))
    for div, c in expr.divs:
        inside = _change(div.inner, move)
        # Within a tile the tile's number stays: packed operands are indexed by both.
        if abs(inside) * _TILE > div.divisor:
            total += c * inside / div.divisor
    return total


def iterator_moves(
    names: tuple[str, ...], values: tuple[Affine, ...]
) -> list[dict[str, Fraction]]:
    """How the iterators ``names`` change when each loop advances by one.

    ``values`` are the loops' schedules in terms of the iterators, outermost first.
    """
    rows: list[tuple[list[Fraction], int]] = []  # linear part, step of a tile loop
    for value in values:
        expr, size = value, 1
        while not expr.terms and len(expr.divs) == 1 and abs(expr.divs[0][1]) == 1:
            size *= expr.divs[0][0].divisor
            expr = expr.divs[0][0].inner
        rows.append(([Fraction(expr.coefficient(n)) for n in names], size))
    if all(sum(map(bool, row)) == 1 == abs(sum(row)) for row, _ in rows):
        return _straight(names, rows)
    # Loops that advance one by one span the space; tile loops walk along one of them.
    basis: list[tuple[int, list[Fraction]]] = []
    for tiled in (False, True):
        for level, (row, size) in enumerate(rows):
            if (size > 1) == tiled and _rank([r for _, r in basis] + [row]) > len(basis):
                basis.append((level, row))
    for k in range(len(names)):
        unit = [Fraction(int(k == d)) for d in range(len(names))]
        if _rank([r for _, r in basis] + [unit]) > len(basis):
            basis.append((-1, unit))
    matrix = [r for _, r in basis]
    result: list[dict[str, Fraction]] = []
    for level, (row, size) in enumerate(rows):
        # the basis loop that this one follows: itself, or the point loop of its tile
        place = next(
            (k for k, (b, r) in enumerate(basis) if b == level or (size > 1 and r == row)), None
        )
        if place is None:
            result.append({})
            continue
        right = [Fraction(size if k == place else 0) for k in range(len(names))]
        result.append(dict(zip(names, _solve(matrix, right), strict=True)))
    return result


def _straight(
    names: tuple[str, ...], rows: list[tuple[list[Fraction], int]]
) -> list[dict[str, Fraction]]:
    """The same for loops that walk along one iterator each, the ordinary case."""
    leads: dict[int, tuple[int, Fraction]] = {}  # per iterator, the loop that moves it
    ways = [next((k, c) for k, c in enumerate(row) if c) for row, _ in rows]
    for tiled in (False, True):
        for level, (_, size) in enumerate(rows):
            iterator, sign = ways[level]
            if (size > 1) == tiled and iterator not in leads:
                leads[iterator] = (level, sign)
    result: list[dict[str, Fraction]] = []
    for level, (_, size) in enumerate(rows):
        iterator, sign = ways[level]
        lead, way = leads[iterator]
        follows = lead == level or (size > 1 and sign == way)
        result.append({names[iterator]: sign * size} if follows else {})
    return result


def _rank(rows: list[list[Fraction]]) -> int:
    work, rank = [list(r) for r in rows], 0
    for column in range(len(rows[0]) if rows else 0):
        pivot = next((k for k in range(rank, len(work)) if work[k][column]), None)
        if pivot is None:
            continue
        work[rank], work[pivot] = work[pivot], work[rank]
        for k in range(rank + 1, len(work)):
            factor = work[k][column] / work[rank][column]
            work[k] = [a - factor * b for a, b in zip(work[k], work[rank], strict=True)]
        rank += 1
    return rank


def _solve(matrix: list[list[Fraction]], right: list[Fraction]) -> list[Fraction]:
    """The solution of a regular square system."""
    size = len(matrix)
    work = [[*row, b] for row, b in zip(matrix, right, strict=True)]
    for column in range(size):
        pivot = next(k for k in range(column, size) if work[k][column])
        work[column], work[pivot] = work[pivot], work[column]
        work[column] = [x / work[column][column] for x in work[column]]
        for k in range(size):
            if k != column and work[k][column]:
                factor = work[k][column]
                work[k] = [a - factor * b for a, b in zip(work[k], work[column], strict=True)]
    return [row[-1] for row in work]


# -- trip counts -----------------------------------------------------------------------------

_NODES = ((0.1127016653792583, 5 / 18), (0.5, 8 / 18), (0.8872983346207417, 5 / 18))
"""Gauss-Legendre nodes and weights on [0, 1]: exact for polynomials up to degree 5."""


@dataclass(frozen=True, slots=True)
class Trip:
    """``mean`` iterations of a loop each time it is entered, ``total`` over the whole run."""

    mean: float
    total: float

    @property
    def is_single(self) -> bool:
        """Whether the loop runs once when it is entered, as far as the mean tells."""
        return abs(self.mean - 1.0) < 1e-3


class Trips:
    """Trip counts of the loops of a tree, for any sizes.

    The bounds are found once with isl; the counts at given sizes are sums over sampled outer
    iterations, exact for rectangular and (but for rounding) for triangular loops. Both are kept in
    ``poly.memo``: schedules that put a statement under the same loops share them.
    """

    def __init__(self, poly: Polyhedra, tree: Node) -> None:
        self.poly = poly
        self._paths = {
            s.name: tuple((x.name, x.expression(s.name)) for x in enclosing(tree, s.name))
            for s in poly.scop.statements
        }

    def at(self, sizes: Mapping[str, int]) -> dict[tuple[str, str], Trip]:
        """``(statement, loop) -> Trip`` for every statement and loop around it."""
        return {
            (statement, name): trip
            for statement, path in self._paths.items()
            for (name, _), trip in zip(
                path, trips_of(self.poly, statement, tuple(v for _, v in path), sizes), strict=True
            )
        }


def trips_of(
    poly: Polyhedra, statement: str, values: tuple[Affine, ...], sizes: Mapping[str, int]
) -> tuple[Trip, ...]:
    """The trip counts of the loops around a statement, where it has these ``values``.

    Raises BudgetExceeded when isl cannot bound the loops within its budget.
    """
    twin = _twin(poly, statement)
    key = ("trips", twin, values, tuple(sizes[n] for n in poly.scop.parameters))
    found: tuple[Trip, ...] | None = poly.memo.get(key)
    if found is None:
        bounds = _bounds(poly, twin, values)
        totals = [0.0] * len(values)
        limits = [[_limit(c, k, sizes) for c in level] for k, level in enumerate(bounds)]
        deciding = {j for level in limits for limit in level for j, _ in limit.terms}
        _sample(limits, deciding, [0] * len(values), 0, 1.0, totals)
        before = [1.0, *totals]
        found = tuple(
            Trip(total / outer if outer else 0.0, total)
            for outer, total in zip(before, totals, strict=False)
        )
        poly.memo[key] = found
    return found


def _twin(poly: Polyhedra, statement: str) -> str:
    """The first statement with the same domain: both have the same bounds."""
    twins: dict[str, str] | None = poly.memo.get("twins")
    if twins is None:
        first: dict[Domain, str] = {}
        twins = {s.name: first.setdefault(s.domain, s.name) for s in poly.scop.statements}
        poly.memo["twins"] = twins
    return twins[statement]


def extent(poly: Polyhedra, statement: str, value: Affine) -> int | None:
    """How many integers ``value`` spans over a statement's instances; None when sizes decide."""
    key = ("extent", statement, value)
    if key not in poly.memo:
        found = image(poly, statement, (value,))
        low, high = found.dim_min_val(0), found.dim_max_val(0)
        known = low.is_int() and high.is_int()
        poly.memo[key] = high.to_python() - low.to_python() + 1 if known else None
    result: int | None = poly.memo[key]
    return result


def image(poly: Polyhedra, statement: str, values: tuple[Affine, ...]) -> isl.Set:
    """The values of a statement's instances, as a set without a name."""
    iterators = ", ".join(poly.scop.statement(statement).iterators)
    text = f"{{ {statement}[{iterators}] -> [{', '.join(map(str, values))}] }}"
    return poly.domains[statement].apply(poly.map(text))


def _bounds(
    poly: Polyhedra, statement: str, values: tuple[Affine, ...]
) -> list[tuple[Constraint, ...]]:
    """Per loop, the constraints on its value ``v<k>`` in terms of the outer ones."""
    keys = [("bounds", statement, values[: k + 1]) for k in range(len(values))]
    missing = [k for k, key in enumerate(keys) if key not in poly.memo]
    if missing:
        names = tuple(f"v{k}" for k in range(len(values)))
        with budget_errors():
            poly.renew_budget()
            whole = image(poly, statement, values[: missing[-1] + 1])
            for k in missing:
                # The hull forgets strides and holes, which an estimate can afford.
                prefix = whole.project_out(isl.dim_type.set, k + 1, missing[-1] - k)
                hull = prefix.remove_divs().simple_hull()
                empty = hull.is_empty()
                poly.memo[keys[k]] = () if empty else constraints_on(hull, names[: k + 1], k)
    return [poly.memo[key] for key in keys]


def meet(
    poly: Polyhedra, a: str, first: tuple[Affine, ...], b: str, second: tuple[Affine, ...]
) -> bool:
    """Whether two statements have instances with the same ``values``."""
    key = ("meet", a, first, b, second)
    found: bool | None = poly.memo.get(key)
    if found is None:
        with budget_errors():
            poly.renew_budget()
            found = not image(poly, a, first).is_disjoint(image(poly, b, second))
        poly.memo[key] = found
    return found


@dataclass(frozen=True, slots=True)
class _Limit:
    """``factor * v + const + sum(c * values[j]) >= 0`` for the value v of a loop.

    With ``exact`` it is an equation, and ``factor`` is positive.
    """

    factor: int
    const: int
    terms: tuple[tuple[int, int], ...]
    exact: bool


def _limit(constraint: Constraint, level: int, sizes: Mapping[str, int]) -> _Limit:
    """The constraint on loop ``level`` at these sizes, over the positions of the outer loops."""
    outer = {f"v{k}": k for k in range(level)}
    own = f"v{level}"
    exact = constraint.kind == "eq"
    expr = constraint.expr
    if exact and expr.coefficient(own) < 0:
        expr = -expr
    fixed = {**sizes, own: 0, **dict.fromkeys(outer, 0)}
    terms = tuple((outer[n], c) for n, c in expr.terms if n in outer)
    return _Limit(expr.coefficient(own), expr.evaluate(fixed), terms, exact)


def _sample(
    limits: list[list[_Limit]], deciding: set[int], values: list[int], level: int,
    weight: float, totals: list[float],
) -> None:  # fmt: skip
    """Add up the iterations of ``level`` and the loops inside, for one choice of outer values.

    A loop that no bound inside depends on (is not ``deciding``) needs a single sample.
    """
    if level == len(limits):
        return
    low: int | None = None
    high: int | None = None
    for limit in limits[level]:
        rest = limit.const + sum(c * values[j] for j, c in limit.terms)
        factor = limit.factor
        if factor > 0:
            bound = -(rest // factor)
            low = bound if low is None else max(low, bound)
        if factor < 0 or limit.exact:
            bound = rest // -factor if factor < 0 else -rest // factor
            high = bound if high is None else min(high, bound)
    if low is None or high is None or low > high:
        return
    count = high - low + 1
    totals[level] += weight * count
    if level + 1 == len(limits):
        return
    if level not in deciding:
        points = [(low, float(count))]
    elif count <= len(_NODES):
        points = [(low + k, 1.0) for k in range(count)]
    else:
        points = [(round(low + x * (count - 1)), w * count) for x, w in _NODES]
    for value, share in points:
        values[level] = value
        _sample(limits, deciding, values, level + 1, weight * share, totals)


# -- memory ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one access touches while ``loop`` and the loops inside it run once.

    ``elements`` counts distinct elements; ``lines`` counts cache lines of 64 bytes.
    """

    statement: str
    position: int
    array: str
    loop: str
    elements: float
    bytes: float
    lines: float


def footprints(
    scop: Scop, tree: Node, sizes: Mapping[str, int], trips: Trips
) -> tuple[Footprint, ...]:
    """One entry per statement, distinct access and loop, at the given sizes."""
    arrays = {a.name: a for a in scop.arrays}
    counts = trips.at(sizes)
    moved = {(w.statement, w.position, w.loop): w for w in walks(scop, tree)}
    found: list[Footprint] = []
    for statement in scop.statements:
        around = [loop.name for loop in enclosing(tree, statement.name)]
        for position, access in accesses(statement):
            array = arrays[access.array]
            spans = [1.0] * array.rank
            visits = 1.0
            rows: list[Footprint] = []
            for loop in reversed(around):
                walk = moved[statement.name, position, loop]
                trip = max(1.0, counts[statement.name, loop].mean)
                for d, step in enumerate(walk.steps):
                    spans[d] += abs(float(step)) * (trip - 1.0)
                if not walk.is_invariant:
                    visits *= trip
                rows.append(_footprint(walk, array, spans, visits, sizes))
            found.extend(reversed(rows))
    return tuple(found)


def _footprint(
    walk: Walk, array: Array, spans: list[float], visits: float, sizes: Mapping[str, int]
) -> Footprint:
    width = ITEMSIZE[array.dtype]
    extents = [max(1, e.evaluate(sizes)) for e in array.shape]
    box = [min(s, float(e)) for s, e in zip(spans, extents, strict=True)]
    elements = min(prod(box), visits)
    # rows of the box are contiguous; every one of them touches whole lines
    last = box[-1] if box else 1.0
    per_row = min(last, max(1.0, last * width / CACHE_LINE))
    lines = min(elements, prod(box[:-1]) * per_row)
    return Footprint(
        walk.statement, walk.position, walk.array, walk.loop, elements, elements * width, lines
    )


__all__ = [
    "CACHE_LINE", "WRITE", "Footprint", "Trip", "Trips", "Walk", "accesses", "extent", "footprints",
    "iterator_moves", "meet", "steps", "trips_of", "walks",
]  # fmt: skip
