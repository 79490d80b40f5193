"""Which loop should be innermost, and which loops are worth running in parallel or in lanes."""

from __future__ import annotations

from dataclasses import dataclass

from perfkit.analysis.footprint import WRITE, Walk, extent, walks
from perfkit.ir.expr import ITEMSIZE
from perfkit.ir.isl import Polyhedra
from perfkit.ir.scop import Scop
from perfkit.ir.tree import Loop, Node, enclosing, statements

UNIT, INVARIANT, STRIDED = 2.0, 1.0, -4.0
"""What an access is worth when a loop walks it: neighbours, the same element, far apart."""


@dataclass(frozen=True, slots=True)
class Locality:
    """The walks of all accesses of a tree, with scores for its loops."""

    by_loop: dict[str, tuple[Walk, ...]]

    @staticmethod
    def of(scop: Scop, tree: Node) -> Locality:
        around = {s: enclosing(tree, s) for s in statements(tree)}
        found: dict[str, list[Walk]] = {}
        deepest: dict[str, int] = {}
        moves: set[tuple[str, str]] = set()
        for name, path in around.items():
            iterators = set(scop.statement(name).iterators)
            for loop in path:
                found.setdefault(loop.name, [])
                deepest[loop.name] = max(deepest.get(loop.name, 0), len(path))
                if loop.expression(name).names() & iterators:
                    moves.add((name, loop.name))
        for walk in walks(scop, tree):
            # A statement that runs at one point of a loop says nothing about walking it.
            deep = len(around[walk.statement]) == deepest[walk.loop]
            if deep and (walk.statement, walk.loop) in moves:
                found[walk.loop].append(walk)
        return Locality({name: tuple(found[name]) for name in found})

    def score(self, loop: str) -> float:
        """How well the loop would do innermost: the mean worth of its accesses."""
        found = self.by_loop.get(loop, ())
        total = weight = 0.0
        for walk in found:
            share = 2.0 if walk.position == WRITE else 1.0
            weight += share
            if walk.is_unit:
                total += share * UNIT
            elif walk.is_invariant:
                total += share * (INVARIANT if walk.position != WRITE else INVARIANT / 2)
            else:
                total += share * STRIDED
        return total / weight if weight else 0.0

    def stands_still(self, loop: str) -> bool:
        """Do the loops outside leave a single iteration, as far as the accesses tell?"""
        return all(w.is_invariant for w in self.by_loop.get(loop, ()))

    def suits_lanes(self, loop: str) -> bool:
        """Do writes go to neighbours, and most loads come from neighbours or one element?"""
        found = self.by_loop.get(loop, ())
        written = [w for w in found if w.position == WRITE]
        good = sum(w.is_unit or w.is_invariant for w in found)
        return bool(found) and all(w.is_unit for w in written) and 2 * good >= len(found)


def is_long(poly: Polyhedra, loop: Loop, shortest: int = 8) -> bool:
    """May the loop have many iterations? False only for a small constant extent."""
    found = (extent(poly, name, loop.expression(name)) for name in statements(loop.body))
    return any(length is None or length >= shortest for length in found)


def lanes(scop: Scop, loop: Loop, simd_bytes: int) -> int:
    """Elements of the widest written type that fit a vector register."""
    widest = max(
        ITEMSIZE[scop.array(scop.statement(s).write.array).dtype] for s in statements(loop.body)
    )
    return max(2, simd_bytes // widest)


__all__ = ["Locality", "is_long", "lanes"]
