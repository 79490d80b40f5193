"""What the cost model knows about a schedule at given sizes: plain numbers, worked out once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from perfkit.analysis.footprint import WRITE, Trip, Trips, accesses, walks
from perfkit.ir.expr import ITEMSIZE, Access
from perfkit.ir.isl import Polyhedra
from perfkit.ir.scop import Scop, Statement
from perfkit.ir.tree import Loop, Node, enclosing, statements

NO_TRIP = Trip(1.0, 1.0)

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

    @staticmethod
    def of(poly: Polyhedra, scop: Scop, tree: Node, sizes: Mapping[str, int]) -> Facts:
        counts = Trips(poly, tree).at(sizes)
        steps: dict[tuple[str, int], list[tuple[float, ...]]] = {}
        for walk in walks(scop, tree):
            found = steps.setdefault((walk.statement, walk.position), [])
            found.append(tuple(map(float, walk.steps)))
        arrays = {a.name: a for a in scop.arrays}
        extents = {a.name: tuple(max(1, e.evaluate(sizes)) for e in a.shape) for a in scop.arrays}
        known = scop.by_name()
        placed: list[Placed] = []
        for name in statements(tree):
            statement = known[name]
            path = enclosing(tree, name)
            trips = tuple(counts.get((name, loop.name), NO_TRIP) for loop in path)
            moves = tuple(
                Move(
                    position, access, ITEMSIZE[arrays[access.array].dtype], extents[access.array],
                    tuple(steps.get((name, position), ())),
                )
                for position, access in accesses(statement)
            )  # fmt: skip
            total = trips[-1].total if trips else 1.0
            placed.append(Placed(statement, path, trips, total, moves))
        return Facts(scop, tree, tuple(placed))


__all__ = ["Facts", "Move", "Placed"]
