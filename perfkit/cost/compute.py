"""Cycles that one core needs for the statements of a schedule when all data are in L1.

The generated code decides: a loop marked ``vector(n)`` runs in explicit SIMD where every statement
below is plain float arithmetic, ``jam(n)`` makes n copies that share loads, the element that a sum
adds to lives in a register during the innermost loop, and the compiler vectorises what is left
only where the innermost loop carries nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from perfkit.cost.device import Device
from perfkit.cost.facts import Facts, Move, Placed
from perfkit.cost.operations import depth_of, operations
from perfkit.ir.expr import ITEMSIZE, walk
from perfkit.ir.tree import loops

ISSUE = 5.0
"""Instructions that a core starts per cycle."""

LOOP_ENTRY = 14.0
"""Cycles to enter and leave a loop: bounds, and the exit that the predictor misses."""

LOOP_STEP = 2.0
"""Cycles per iteration of a loop that is not innermost."""

GUARD = 3.0
"""Cycles per iteration for the tests around a statement that runs on a part of a loop only."""

GATHER = 2.5
"""Cycles per lane to collect a vector from elements that are not neighbours."""

FORWARD = 5.0
"""Cycles from a store to a load of the same element."""

AUTOMATIC = 1.25
"""How much longer loops take that the compiler vectorises: alias checks, unknown alignment."""

@dataclass(frozen=True, slots=True)
class Shape:
    """How the instances of a statement run: ``lanes`` at once, ``copies`` vectors side by side.

    ``full`` is the share of instances in whole strips; the rest runs one by one. ``factors``
    holds, per loop of the path, how many iterations stand side by side (1 for most).
    """

    lanes: int
    full: float
    factors: tuple[int, ...]
    vector: int | None
    slowdown: float = 1.0

    @property
    def widths(self) -> tuple[int, ...]:
        """Per loop, how many of its iterations are taken together inside the innermost loop."""
        return tuple(
            f * (self.lanes if k == self.vector else 1) for k, f in enumerate(self.factors)
        )


class Compute:
    """Cycles by innermost body, and of the loops around them."""

    def __init__(self, facts: Facts, device: Device) -> None:
        self.device = device
        self.facts = facts
        self.placed = facts.placed
        self.ops = {p.name: operations(p.statement.value, p.statement.write) for p in facts.placed}
        self.inside = {loop.name: tuple(s for s, _ in loop.schedule) for loop in loops(facts.tree)}
        self.by_name = {p.name: p for p in facts.placed}
        self.explicit = {
            loop.name: self._explicit(loop.name)
            for loop in loops(facts.tree)
            if loop.mark("vector")
        }
        self.shapes = {p.name: self._shape(p) for p in facts.placed}
        self._busy: dict[tuple[str, ...], float] = {}

    @property
    def widths(self) -> dict[str, tuple[int, ...]]:
        """See :attr:`Shape.widths`, by statement."""
        return {n: s.widths for n, s in self.shapes.items()}

    # -- how it runs -----------------------------------------------------------------------------

    def _explicit(self, loop: str) -> bool:
        """Whether the loop's strips become vector code: plain arithmetic on one type."""
        types: set[str] = set()
        for name in self.inside[loop]:
            placed = self.by_name[name]
            if not self.ops[name].is_plain:
                return False
            types |= {e.dtype for e in walk(placed.statement.value)}
            k = _index(placed, loop)
            if placed.write.is_invariant(k) and k + 1 != len(placed.path):
                return False
        return len(types) == 1

    def _shape(self, placed: Placed) -> Shape:
        factors = [1] * len(placed.path)
        lanes, full, vector = 1, 1.0, None
        for k, loop in enumerate(placed.path):
            trip, most = placed.trips[k].mean, _tile_size(placed, k)
            mark, jam = loop.mark("vector"), loop.mark("jam")
            if mark and vector is None and self.explicit[loop.name]:
                item = ITEMSIZE[placed.statement.value.dtype]
                lanes = max(1, min(mark.factor, self.device.simd_bytes // item))
                width = mark.factor // lanes * lanes
                factors[k], vector = width // lanes, k
                full *= _whole(trip, width, most)
            elif jam:
                factors[k] = jam.factor
                full *= _whole(trip, jam.factor, most)
            elif unroll := loop.mark("unroll"):
                full *= _whole(trip, unroll.factor, most)
        if vector is None and placed.path and self._automatic(placed):
            item = max(m.item_bytes for m in placed.moves)
            lanes = max(1, self.device.simd_bytes // item)
            vector = placed.inner
            full *= _whole(placed.trips[vector].mean, lanes)
            return Shape(lanes, full, tuple(factors), vector, AUTOMATIC)
        return Shape(lanes, full, tuple(factors), vector)

    def _automatic(self, placed: Placed) -> bool:
        """Whether the compiler vectorises the innermost loop that it does not unroll, by itself."""
        last = placed.inner
        loop = placed.path[last]
        body = [self.by_name[n] for n in self.inside[loop.name]]
        if any(p.inner != last for p in body):
            return False  # loops inside: not innermost
        body = [p for p in body if self._together(placed, p)]
        known = loop.mark("vector") is not None
        writes = {p.write.access.array: p.write for p in body}
        for p in body:
            if self.ops[p.name].has_calls:
                return False
            if not p.write.is_unit(last):
                return False
            if sum(not (m.is_unit(last) or m.is_invariant(last)) for m in p.moves) > 1:
                return False
            for m in p.moves:
                target = writes.get(m.access.array)
                if not known and target is not None and _carried(target, m, last):
                    return False
        return True

    def _together(self, first: Placed, second: Placed) -> bool:
        """Whether two statements of an innermost loop run in the same iterations of the C loop.

        Bounds are split where statements occupy other ranges, or single iterations.
        """
        if (first.name, second.name) in self.facts.apart:
            return False
        iterators = set(first.statement.iterators), set(second.statement.iterators)
        found = [
            {(n, c) for n, c in p.path[-1].expression(p.name).terms if n not in own}
            for p, own in zip((first, second), iterators, strict=True)
        ]
        moves = [
            bool(p.path[-1].expression(p.name).names() & own)
            for p, own in zip((first, second), iterators, strict=True)
        ]
        return found[0] == found[1] and moves[0] == moves[1]

    # -- what it costs ---------------------------------------------------------------------------

    def bodies(self) -> dict[str, list[Placed]]:
        """Statements by the loop directly around them ("" for none)."""
        found: dict[str, list[Placed]] = {}
        for placed in self.placed:
            found.setdefault(placed.path[-1].name if placed.path else "", []).append(placed)
        return found

    def body_cycles(self, body: Sequence[Placed]) -> float:
        """Cycles of all instances of the statements directly inside one loop."""
        key = tuple(p.name for p in body)
        if key not in self._busy:
            self._busy[key] = self._body_cycles(body)
        return self._busy[key]

    def _body_cycles(self, body: Sequence[Placed]) -> float:
        busy = waiting = passed = 0.0
        most = max(p.instances for p in body)
        for placed in body:
            shape = self.shapes[placed.name]
            whole = placed.instances * shape.full / shape.lanes
            rest = placed.instances * (1.0 - shape.full)
            busy += whole * self._throughput(placed, shape, shape.lanes) * shape.slowdown
            single = Shape(1, 1.0, (1,) * len(placed.path), None)
            busy += rest * self._throughput(placed, single, 1)
            waiting = max(
                waiting, whole * self._latency(placed, shape) + rest * self._latency(placed, single)
            )
            passed += whole * self._passing(placed, body)
            if (
                placed.instances < 0.9 * most
                and placed.path[-1].expression(placed.name).is_constant
            ):
                busy += GUARD * (most - placed.instances) / shape.lanes
        first = max(body, key=lambda p: p.instances)
        shape = self.shapes[first.name]
        side = (shape.lanes if shape.full > 0.5 else 1) * prod(shape.factors)
        if first.path:  # counting and jumping
            busy += most / side / prod(t.mean for t in first.trips[first.inner + 1 :])
        return max(busy, waiting, passed)

    def _throughput(self, placed: Placed, shape: Shape, lanes: int) -> float:
        """Cycles per vector (or single) instance."""
        ops, device = self.ops[placed.name], self.device
        last = len(placed.path) - 1
        side = prod(shape.factors)
        loads = stores = collect = registers = 0.0
        for move in placed.moves:
            copies = 1
            for k, factor in enumerate(shape.factors):
                copies *= 1 if move.is_invariant(k) else factor
            share = copies / side
            if last >= 0 and move.is_invariant(last):
                # kept in registers while the innermost loop runs, and those around that unroll
                share /= max(1.0, _kept(placed, move) / (shape.factors[last] * lanes))
                registers += copies
            if move.is_write:
                stores += share
            else:
                loads += share
            if shape.vector is not None and lanes > 1:
                k = shape.vector
                if not (move.is_unit(k) or move.is_invariant(k)):
                    collect += GATHER * lanes * share
        spilled = max(0.0, registers - (device.registers - 3))
        if last >= 0 and placed.write.is_invariant(last) and side > 1:
            loads, stores = loads + spilled / side, stores + spilled / side
        dear = ops.dear * (lanes if lanes == 1 or ops.has_calls else lanes / 2.0)
        arithmetic = (ops.fma + ops.other) / device.fma_per_cycle + dear
        issued = (ops.fma + ops.other + loads + stores) / ISSUE
        memory = max(loads / device.loads_per_cycle, stores / device.stores_per_cycle)
        return max(arithmetic, memory, issued) + collect

    def _latency(self, placed: Placed, shape: Shape) -> float:
        """Cycles from one vector instance to the next one that needs its result, per copy."""
        last = placed.inner
        if last < 0 or (shape.vector == last and not placed.write.is_invariant(last)):
            return 0.0
        chain = self.ops[placed.name].chain
        if placed.write.is_invariant(last) and chain:
            copies = 1
            for k, factor in enumerate(shape.factors):
                if k != last and not placed.write.is_invariant(k):
                    copies *= factor
            if shape.vector == last:
                copies = shape.factors[last]
            single = self.device.add_latency if shape.lanes == 1 else self.device.fma_latency
            return max(1.0, chain) * single / copies
        target = placed.write
        reads = [m for m in placed.moves[1:] if m.access.array == target.access.array]
        waiting = {m.access for m in reads if _carried(target, m, last)}
        if not waiting:
            return 0.0
        chain = depth_of(placed.statement.value, waiting.__contains__) * self.device.add_latency
        # Copies that are jammed wait side by side.
        return (FORWARD + chain) / prod(shape.factors[:last])

    def _passing(self, placed: Placed, body: Sequence[Placed]) -> float:
        """Cycles to pass values on to other statements of the body through scalars.

        Recurrences such as filters go through several statements, one after the other.
        """
        last = len(placed.path) - 1
        if last < 0 or len(body) < 2:
            return 0.0
        fed = {
            p.write.access.array for p in body
            if p is not placed and p.write.is_invariant(len(p.path) - 1)
        }  # fmt: skip
        return depth_of(placed.statement.value, lambda a: a.array in fed) * self.device.add_latency

    def loop_cycles(self, name: str) -> float:
        """Cycles for entering a loop and counting, its body apart."""
        users = [self.by_name[s] for s in self.inside[name]]
        if all(p.trips[_index(p, name)].is_single for p in users):
            return 0.0  # isl writes no loop
        entries = steps = 0.0
        inner = unrolled = True
        for placed in users:
            k = _index(placed, name)
            shape = self.shapes[placed.name]
            outside = 1.0
            for factor in shape.factors[:k]:
                outside *= factor
            if shape.vector is not None and shape.vector < k:
                outside *= shape.lanes
            outside = 1.0 + (outside - 1.0) * shape.full
            entries = max(entries, placed.entered(k) / outside)
            steps = max(steps, placed.trips[k].total / outside / shape.factors[k])
            inner = inner and k >= placed.inner
            unrolled = unrolled and k > placed.inner
        if unrolled:
            return 0.0
        return entries * LOOP_ENTRY + (0.0 if inner else steps * LOOP_STEP)


def _kept(placed: Placed, move: Move) -> float:
    """Iterations that an element stays in a register for."""
    found = 1.0
    for k in range(len(placed.path) - 1, placed.inner - 1, -1):
        if not move.is_invariant(k):
            break
        found *= placed.trips[k].mean
    return found


def _index(placed: Placed, loop: str) -> int:
    return next(k for k, x in enumerate(placed.path) if x.name == loop)


def _tile_size(placed: Placed, k: int) -> int:
    """The size of the tile that loop ``k`` runs through, 0 for a loop that is not tiled."""
    point = placed.path[k].expression(placed.name)
    sizes = [
        div.divisor
        for loop in placed.path[:k]
        for div, _ in loop.expression(placed.name).divs
        if (div.inner - point).is_constant
    ]
    return min(sizes, default=0)


def _whole(trip: float, width: int, longest: float = 0.0) -> float:
    """The share of iterations in whole strips of ``width``, over loops of about this length.

    Most loops of a tile have the ``longest`` trip, and only those at the edge a shorter one.
    """
    if longest > trip:
        return max(_whole(trip, width), longest // width * width / longest * trip / longest)
    if trip < width:
        return max(0.0, (trip - width / 2) / width) if trip > width / 2 else 0.0
    if trip == round(trip):
        return trip // width * width / trip
    return max(0.0, 1.0 - (width - 1) / 2 / trip)


def _carried(write: Move, read: Move, k: int) -> bool:
    """Whether loop k reads what an earlier iteration of its wrote, judging by the subscripts."""
    if write.is_invariant(k):
        return True
    if write.access == read.access or write.steps != read.steps:
        return False
    deltas = [a - b for a, b in zip(write.access.indices, read.access.indices, strict=True)]
    if not all(d.is_constant for d in deltas):
        return False
    step = write.steps[k]
    times = {d.const / s for d, s in zip(deltas, step, strict=True) if s}
    still = all(not d.const for d, s in zip(deltas, step, strict=True) if not s)
    return still and len(times) == 1 and times != {0.0}


__all__ = ["Compute", "Shape"]
