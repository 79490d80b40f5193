"""What the cost model knows about a schedule at given sizes: plain numbers, worked out once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod

from perfkit.analysis.footprint import WRITE, Trip, accesses, meet, steps, trips_of
from perfkit.ir.affine import Affine
from perfkit.ir.expr import ITEMSIZE, Access
from perfkit.ir.isl import Polyhedra
from perfkit.ir.scop import Scop, Statement
from perfkit.ir.tree import Loop, Node, paths

UNROLLED = 8
"""Compilers unroll an innermost loop completely when it always runs so many times or fewer."""


@dataclass(frozen=True, slots=True)
class Move:
    """An access of a statement: how it moves along the loops around, outermost first.

    ``steps[k][d]`` is the change of index d per iteration of loop k.
    """

    position: int
    access: Access
    item_bytes: int
    extents: tuple[int, ...]
    steps: tuple[tuple[float, ...], ...]

    @property
    def is_write(self) -> bool:
        return self.position == WRITE

    def is_invariant(self, k: int) -> bool:
        return not any(self.steps[k])

    def is_unit(self, k: int) -> bool:
        steps = self.steps[k]
        return bool(steps) and abs(steps[-1]) == 1.0 and not any(steps[:-1])

    def stride(self, k: int) -> float:
        """Bytes that the access moves by when loop k advances."""
        total, weight = 0.0, self.item_bytes
        for step, extent in zip(reversed(self.steps[k]), reversed(self.extents), strict=True):
            total += step * weight
            weight *= extent
        return abs(total)

    @property
    def array_bytes(self) -> int:
        return prod(self.extents) * self.item_bytes


@dataclass(frozen=True, slots=True)
class Placed:
    """A statement in its loops. ``instances`` run altogether; ``trips`` go with ``path``."""

    statement: Statement
    path: tuple[Loop, ...]
    trips: tuple[Trip, ...]
    instances: float
    moves: tuple[Move, ...]

    @property
    def name(self) -> str:
        return self.statement.name

    @property
    def write(self) -> Move:
        return self.moves[0]

    @property
    def inner(self) -> int:
        """The position of the innermost loop that remains one; -1 without any."""
        last = len(self.path) - 1
        while last > 0 and self._is_unrolled(last):
            last -= 1
        return last

    def _is_unrolled(self, k: int) -> bool:
        """Whether loop k runs from one constant to another, and shortly."""
        walked = self.path[k].expression(self.name).names()
        bounds = [c for p in self.statement.domain.pieces for c in p if c.expr.names() & walked]
        fixed = all(len(c.expr.names()) == 1 and not c.expr.divs for c in bounds)
        return len(walked) == 1 and fixed and self.trips[k].mean <= UNROLLED

    @property
    def parallel(self) -> int | None:
        """The position of the loop whose iterations threads share."""
        return next((k for k, loop in enumerate(self.path) if loop.mark("parallel")), None)

    def entered(self, k: int) -> float:
        """How often loop k is entered."""
        return self.trips[k - 1].total if k else 1.0


@dataclass(frozen=True, slots=True)
class Facts:
    """Every statement of a schedule, in textual order."""

    scop: Scop
    tree: Node
    placed: tuple[Placed, ...]
    apart: frozenset[tuple[str, str]]
    """Pairs of statements of one innermost loop that never run in the same iteration of it."""

    @staticmethod
    def of(poly: Polyhedra, scop: Scop, tree: Node, sizes: Mapping[str, int]) -> Facts:
        """``poly`` is that of ``scop``; what its other schedules share is worked out once.

        Raises BudgetExceeded when isl cannot bound the loops within its budget.
        """
        extents = _extents(poly, scop, sizes)
        placed: list[Placed] = []
        bodies: dict[str, list[tuple[str, tuple[Affine, ...]]]] = {}
        for name, path in paths(tree).items():
            values = tuple(value for _, value in path)
            moves = _moves(poly, name, values, extents)
            trips = trips_of(poly, name, values, sizes)
            total = trips[-1].total if trips else 1.0
            around = tuple(loop for loop, _ in path)
            placed.append(Placed(scop.statement(name), around, trips, total, moves))
            if path:
                bodies.setdefault(around[-1].name, []).append((name, values))
        apart = {pair for body in bodies.values() for pair in _apart(poly, body)}
        return Facts(scop, tree, tuple(placed), frozenset(apart))


def _extents(poly: Polyhedra, scop: Scop, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    key = ("extents", tuple(sizes[n] for n in scop.parameters))
    found: dict[str, tuple[int, ...]] | None = poly.memo.get(key)
    if found is None:
        found = {a.name: tuple(max(1, e.evaluate(sizes)) for e in a.shape) for a in scop.arrays}
        poly.memo[key] = found
    return found


def _moves(
    poly: Polyhedra, name: str, values: tuple[Affine, ...], extents: Mapping[str, tuple[int, ...]]
) -> tuple[Move, ...]:
    statement = poly.scop.statement(name)
    shapes = tuple(extents[access.array] for _, access in accesses(statement))
    key = ("moves", name, values, shapes)
    found: tuple[Move, ...] | None = poly.memo.get(key)
    if found is None:
        along = steps(statement, values)
        found = tuple(
            Move(
                position, access, ITEMSIZE[poly.scop.array(access.array).dtype],
                extents[access.array], tuple(tuple(map(float, s)) for s in along[position]),
            )
            for position, access in accesses(statement)
        )  # fmt: skip
        poly.memo[key] = found
    return found


MOST_PAIRS = 28
"""Pairs of statements of one loop that are told apart; in larger bodies all count as together."""


def _apart(
    poly: Polyhedra, body: Sequence[tuple[str, tuple[Affine, ...]]]
) -> Iterator[tuple[str, str]]:
    """Both orders of each pair that shares no iteration.

    Tile loops follow from the loops inside them, so they are not asked.
    """
    points = [(name, tuple(v for v in values if not v.divs)) for name, values in body]
    pairs = [
        (a, b) for a, b in combinations(points, 2) if len(a[1]) == len(b[1]) and len(a[1])
    ]  # fmt: skip
    if len(pairs) > MOST_PAIRS:
        return
    for (a, first), (b, second) in pairs:
        if not meet(poly, a, first, b, second):
            yield from ((a, b), (b, a))


__all__ = ["Facts", "Move", "Placed"]
