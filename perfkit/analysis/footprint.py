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
from perfkit.ir.isl import Polyhedra, budget_errors, domain_of
from perfkit.ir.scop import Array, Scop, Statement
from perfkit.ir.tree import Loop, Node, enclosing

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
        moves = _moves(statement, enclosing(tree, statement.name))
        for position, access in accesses(statement):
            for loop, move in moves.items():
                steps = tuple(_change(index, move) for index in access.indices)
                found.append(Walk(statement.name, position, access.array, loop, steps))
    return tuple(found)


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


def _moves(statement: Statement, around: tuple[Loop, ...]) -> dict[str, dict[str, Fraction]]:
    """How the iterators change when each loop advances by one."""
    names = statement.iterators
    rows: list[tuple[str, list[Fraction], int]] = []  # loop, linear part, step of a tile loop
    for loop in around:
        expr, size = loop.expression(statement.name), 1
        while not expr.terms and len(expr.divs) == 1 and abs(expr.divs[0][1]) == 1:
            size *= expr.divs[0][0].divisor
            expr = expr.divs[0][0].inner
        rows.append((loop.name, [Fraction(expr.coefficient(n)) for n in names], size))
    # Loops that advance one by one span the space; tile loops walk along one of them.
    basis: list[tuple[str, list[Fraction]]] = []
    for tiled in (False, True):
        for name, row, size in rows:
            if (size > 1) == tiled and _rank([r for _, r in basis] + [row]) > len(basis):
                basis.append((name, row))
    for k in range(len(names)):
        unit = [Fraction(int(k == d)) for d in range(len(names))]
        if _rank([r for _, r in basis] + [unit]) > len(basis):
            basis.append(("", unit))
    matrix = [r for _, r in basis]
    result: dict[str, dict[str, Fraction]] = {}
    for name, row, size in rows:
        # the basis loop that this one follows: itself, or the point loop of its tile
        place = next(
            (k for k, (b, r) in enumerate(basis) if b == name or (size > 1 and r == row)), None
        )
        if place is None:
            result[name] = {}
            continue
        right = [Fraction(size if k == place else 0) for k in range(len(names))]
        result[name] = dict(zip(names, _solve(matrix, right), strict=True))
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


class Trips:
    """Trip counts of the loops of a tree, for any sizes.

    The bounds are found once with isl; the counts at given sizes are sums over sampled outer
    iterations, exact for rectangular and (but for rounding) for triangular loops.
    """

    def __init__(self, poly: Polyhedra, tree: Node) -> None:
        self._paths: dict[str, tuple[tuple[str, ...], list[list[Constraint]]]] = {}
        with budget_errors():
            poly.renew_budget()
            # Statements of one domain that run together have the same bounds.
            known: dict[tuple[Domain, tuple[Affine, ...]], list[list[Constraint]]] = {}
            for s in poly.scop.statements:
                around = enclosing(tree, s.name)
                key = (s.domain, tuple(x.expression(s.name) for x in around))
                if key not in known:
                    known[key] = _bounds(poly, s, around)
                self._paths[s.name] = (tuple(x.name for x in around), known[key])

    def at(self, sizes: Mapping[str, int]) -> dict[tuple[str, str], Trip]:
        """``(statement, loop) -> Trip`` for every statement and loop around it."""
        result: dict[tuple[str, str], Trip] = {}
        for statement, (names, bounds) in self._paths.items():
            totals = [0.0] * len(names)
            limits = [[_limit(c, k, sizes) for c in level] for k, level in enumerate(bounds)]
            deciding = {j for level in limits for limit in level for j, _ in limit.terms}
            _sample(limits, deciding, [0] * len(names), 0, 1.0, totals)
            before = 1.0
            for name, total in zip(names, totals, strict=True):
                result[statement, name] = Trip(total / before if before else 0.0, total)
                before = total
        return result


def _bounds(poly: Polyhedra, s: Statement, around: tuple[Loop, ...]) -> list[list[Constraint]]:
    """Per loop, the constraints on its value ``v<k>`` in terms of the outer ones."""
    if not around:
        return []
    values = ", ".join(str(loop.expression(s.name)) for loop in around)
    image = poly.domains[s.name].apply(
        poly.map(f"{{ {s.name}[{', '.join(s.iterators)}] -> [{values}] }}")
    )
    names = tuple(f"v{k}" for k in range(len(around)))
    result = []
    for k in range(len(around)):
        # The hull forgets strides and holes, which an estimate can afford.
        prefix = image.project_out(isl.dim_type.set, k + 1, len(around) - k - 1)
        hull = isl.Set.from_basic_set(prefix.remove_divs().simple_hull())
        pieces = domain_of(hull, names[: k + 1]).pieces
        result.append([c for c in pieces[0] if c.expr.coefficient(f"v{k}")] if pieces else [])
    return result


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
    "CACHE_LINE", "WRITE", "Footprint", "Trip", "Trips", "Walk", "accesses", "footprints", "walks",
]  # fmt: skip
