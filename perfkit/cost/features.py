"""What the learned cost model sees of a schedule: numbers per loop, access, statement and program.

:mod:`perfkit.cost.columns` names every column. The tokens form a tree: the program, its loops,
their statements, and the accesses of those. ``parent`` says where each hangs; the model relates
tokens by it (:func:`perfkit.cost.tokens.relations`). What the analytic model expects of each goes
with them, for the learned one to correct.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from math import gcd, log, log2, prod
from typing import Any

import numpy as np

from perfkit.analysis.footprint import CACHE_LINE
from perfkit.cost.analytic import Estimate, assess
from perfkit.cost.columns import INNER, KINDS, LEVELS, WIDTHS
from perfkit.cost.compute import Compute
from perfkit.cost.device import Device
from perfkit.cost.facts import Facts, Placed
from perfkit.cost.features_roofline import Roofline, spread
from perfkit.cost.tokens import LEAST, Tokens
from perfkit.cost.traffic import Group, Traffic
from perfkit.ir.isl import Polyhedra
from perfkit.ir.scop import Scop
from perfkit.ir.tree import Leaf, Loop, Node, Sequence, loops

Array = np.ndarray[Any, Any]


def lg(value: float) -> float:
    """log2, with nothing below 2^-20 told apart."""
    return log2(max(value, 2.0**-20))


class Extractor:
    """Features of the schedules of one program at given sizes on one device."""

    def __init__(
        self, poly: Polyhedra, scop: Scop, sizes: Mapping[str, int], device: Device,
        fp: str = "strict",
    ) -> None:  # fmt: skip
        """``scop`` is the original program: its operations and data give the roofline.

        ``fp`` is "reassociate" where sums may be reordered. Raises BudgetExceeded when isl cannot
        bound its loops.
        """
        self.sizes, self.device, self.fp = dict(sizes), device, fp
        self.roofline = Roofline.of(Facts.of(poly, scop, scop.tree, sizes), device)
        levels = list(device.levels)[:LEVELS]
        self.levels = levels + levels[-1:] * (LEVELS - len(levels))

    def tokens(self, poly: Polyhedra, scop: Scop, tree: Node) -> Tokens:
        """The features of a schedule. Raises BudgetExceeded like the analytic model."""
        return _Tokens(self, Facts.of(poly, scop, tree, self.sizes)).tokens()


class _Tokens:
    def __init__(self, extractor: Extractor, facts: Facts) -> None:
        self.device, self.levels = extractor.device, extractor.levels
        self.roofline, self.facts, self.fp = extractor.roofline, facts, extractor.fp
        self.compute = Compute(facts, self.device)
        self.traffic = Traffic(facts, self.device, self.compute.widths)
        self.estimate: Estimate = assess(self.compute, self.traffic, self.device)
        self.threads = {p.name: spread(p, self.device) for p in facts.placed}
        hertz = self.device.hertz
        self.busy = {
            p.name: self.compute.body_cycles([p]) / hertz / self.threads[p.name]
            for p in facts.placed
        }
        self.fill = {
            p.name: [self.traffic.seconds(p, x, self.threads[p.name]) for x in self.levels]
            for p in facts.placed
        }
        self.time = self.estimate.statements
        self.total = sum(self.time.values()) or 1e-12
        self.by_name = {p.name: p for p in facts.placed}
        self.bodies = {p.name: body for body in self.compute.bodies().values() for p in body}

    def tokens(self) -> Tokens:
        rows: dict[str, list[list[float]]] = {k: [] for k in KINDS}
        found = loops(self.facts.tree)
        place = {loop.name: k + 1 for k, loop in enumerate(found)}
        parent = [0, *_loop_parents(self.facts.tree, place)]
        for loop in found:
            rows["loop"].append(self._loop(loop))
        first = 1 + len(found)
        owners: list[int] = []
        for k, placed in enumerate(self.facts.placed):
            rows["statement"].append(self._statement(placed))
            parent.append(place[placed.path[-1].name] if placed.path else 0)
            for group in self.traffic.groups[placed.name]:
                rows["access"].append(self._access(group))
                owners.append(first + k)
        rows["program"].append(self._program())
        parent += owners
        arrays = {
            k: np.asarray(rows[k], np.float32).reshape(len(rows[k]), WIDTHS[k]) for k in KINDS
        }
        seconds = chain(
            [self.estimate.waiting], (self.estimate.loops.get(x.name, 0.0) for x in found),
            (self.time[p.name] for p in self.facts.placed), (0.0 for _ in owners),
        )  # fmt: skip
        scale = self.roofline.seconds
        terms = [max(LEAST, log(s / scale)) if s > 0 else LEAST for s in seconds]
        return Tokens(arrays, np.asarray(parent, np.int64), np.asarray(terms, np.float32), scale)

    # -- rows ------------------------------------------------------------------------------------

    def _loop(self, loop: Loop) -> list[float]:
        names = [s for s, _ in loop.schedule]
        users = [self.by_name[s] for s in names]
        places = [p.path.index(loop) for p in users]
        trips = [p.trips[k] for p, k in zip(users, places, strict=True)]
        trip = max(t.mean for t in trips)
        entered = max(p.entered(k) for p, k in zip(users, places, strict=True))
        work = sum(p.instances for p in users) / max(1.0, entered)
        held = sum(
            max((g.lines[k] for g in self.traffic.groups[p.name]), default=0.0) * CACHE_LINE
            for p, k in zip(users, places, strict=True)
        )
        covers, skewed = _covers(loop, self.by_name)
        threads = self.device.threads
        uneven = -(-trip // threads) * threads / trip if loop.mark("parallel") and trip else 1.0
        marks = {m.kind: m.factor for m in loop.marks}
        inside = loops(loop.body)
        body = loop.body
        return [
            lg(trip), lg(max(t.total for t in trips)), lg(entered),
            float("parallel" in marks), lg(marks.get("vector", 1)), lg(marks.get("jam", 1)),
            lg(marks.get("unroll", 1)), lg(covers), float(skewed),
            float(_runs_down(loop, self.by_name)), float(not inside),
            float(places[0]), float(max(len(p.path) for p in users) - 1 - places[0]),
            lg(len(names)), lg(len(body.children) if isinstance(body, Sequence) else 1),
            *(lg(held / x.bytes) for x in self.levels), lg(work), lg(uneven),
            lg(self.estimate.loops.get(loop.name, 0.0) / self.total),
        ]  # fmt: skip

    def _access(self, group: Group) -> list[float]:
        placed, move = group.owner, group.move
        depth = len(placed.path)
        row = [
            float(group.written), lg(sum(m.steps == move.steps for m in placed.moves)),
            lg(move.item_bytes), *(lg(move.array_bytes / x.bytes) for x in self.levels),
        ]  # fmt: skip
        for k in range(INNER):
            at = depth - 1 - k
            if at < 0:
                row += [lg(0.0), 0.0, 1.0, 0.0, 0.0, 0.0]
                continue
            row += [
                lg(move.stride(at) / CACHE_LINE), float(move.is_unit(at)),
                float(move.is_invariant(at)), lg(group.lines[at]),
                *(_left_out(move.stride(at), x.bytes) for x in self.levels[:2]),
            ]  # fmt: skip
        still = [k for k in range(depth) if move.is_invariant(depth - 1 - k)]
        steps = move.steps[-1] if depth else ()
        row += [
            float(next((s < 0 for s in steps if s), False)),
            float(still[0] + 1 if still else 0), lg(group.lines[0]),
            lg(placed.instances / max(1.0, group.lines[0])), float(group.private),
        ]  # fmt: skip
        return row

    def _statement(self, placed: Placed) -> list[float]:
        name = placed.name
        ops, shape = self.compute.ops[name], self.compute.shapes[name]
        busy, copies = self.busy[name], 1
        for factor in shape.factors:
            copies *= factor
        threads = self.threads[name]
        summing = bool(placed.path) and placed.write.is_invariant(len(placed.path) - 1)
        cycles = busy * self.device.hertz * threads / max(1.0, placed.instances)
        moving = sum(bool(placed.path) and not m.is_invariant(-1) for m in placed.moves)
        body = self.bodies[name]
        return [
            lg(placed.instances), lg(1 + ops.fma), lg(1 + ops.other), lg(1 + ops.dear),
            lg(1 + ops.chain), float(ops.is_plain), lg(shape.lanes),
            float(shape.slowdown > 1.0), float(shape.full), lg(copies), float(summing),
            moving / len(placed.moves), lg(len(body)),
            float(placed.instances < 0.9 * max(p.instances for p in body)),
            lg(prod(t.mean for t in placed.trips[placed.inner + 1 :])), float(len(placed.path)),
            lg(threads), lg(cycles),
            *(lg(f / max(busy, 1e-12)) for f in self.fill[name]),
            lg(self.time[name] / self.total),
        ]  # fmt: skip

    def _program(self) -> list[float]:
        line, device = self.roofline, self.device
        serial = sum(t for n, t in self.time.items() if self.threads[n] <= 1.0)
        fills = [sum(f[k] for f in self.fill.values()) for k in range(LEVELS)]
        scale = line.seconds
        return [
            lg(line.seconds * 1e9), lg(line.compute / line.seconds),
            lg(line.operations / max(1.0, line.bytes)),
            *(lg(line.bytes / x.bytes) for x in self.levels), float(line.item_bytes == 4),
            float(self.fp == "reassociate"),
            lg(device.threads), lg(len(self.facts.placed)), lg(len(loops(self.facts.tree)) + 1),
            lg(sum(self.busy.values()) / scale), *(lg(f / scale) for f in fills),
            lg(sum(self.estimate.loops.values()) / scale), lg(self.estimate.waiting / scale),
            serial / self.total, lg(self.estimate.seconds / scale),
        ]  # fmt: skip


def _covers(loop: Loop, placed: Mapping[str, Placed]) -> tuple[int, bool]:
    """Iterations of the point loop that one step covers, and whether iterators are mixed."""
    covers, skewed = 1, False
    for name, expr in loop.schedule:
        size = 1
        while not expr.terms and len(expr.divs) == 1:
            size *= expr.divs[0][0].divisor
            expr = expr.divs[0][0].inner
        own = set(placed[name].statement.iterators)
        skewed = skewed or sum(n in own for n, _ in expr.terms) > 1
        covers = max(covers, size)
    return covers, skewed


def _loop_parents(tree: Node, place: Mapping[str, int]) -> list[int]:
    """The token of the loop around each loop, in the order of ``loops``."""
    found: list[int] = []

    def visit(node: Node, above: int) -> None:
        match node:
            case Loop():
                found.append(above)
                visit(node.body, place[node.name])
            case Sequence(children=children):
                for child in children:
                    visit(child, above)
            case Leaf():
                pass

    visit(tree, 0)
    return found


def _runs_down(loop: Loop, placed: Mapping[str, Placed]) -> bool:
    """Whether an iterator enters with a negative sign."""
    return any(
        c < 0 for name, expr in loop.schedule for n, c in expr.terms
        if n in placed[name].statement.iterators
    )  # fmt: skip


WAYS = 8
"""Lines that a set of a cache holds; processors differ, powers of two apart."""


def _left_out(stride: float, size: int) -> float:
    """log2 of the sets of a cache over those that steps of ``stride`` bytes come through.

    A walk by a large power of two comes back to few sets, so it evicts its own lines long before
    the cache is full.
    """
    if stride < CACHE_LINE or stride % CACHE_LINE:
        return 0.0
    way = 1 << (size // WAYS).bit_length() - 1
    return log2(gcd(int(stride), way) / CACHE_LINE)


__all__ = ["Extractor", "lg"]
