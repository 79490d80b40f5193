"""What the learned cost model sees of a schedule: numbers per loop, access, statement and program.

Everything is in log2 and relative to constants of the device (cache sizes, vector width, threads,
bandwidth), so that a model carries over between sizes and, as far as the physics is the same,
between machines. :data:`LOOP`, :data:`ACCESS`, :data:`STATEMENT` and :data:`PROGRAM` name every
column; a change of them is a new :data:`SCHEMA`.

The tokens form a tree: the program, its loops, their statements, and the accesses of those.
``parent`` says where each hangs; the model relates tokens by it (:func:`relations`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2
from typing import Any

import numpy as np

from perfkit.analysis.footprint import CACHE_LINE
from perfkit.cost.compute import Compute
from perfkit.cost.device import Device
from perfkit.cost.facts import Facts, Placed
from perfkit.cost.features_roofline import Roofline, spread
from perfkit.cost.traffic import Group, Traffic
from perfkit.ir.isl import Polyhedra
from perfkit.ir.scop import Scop
from perfkit.ir.tree import Leaf, Loop, Node, Sequence, loops

SCHEMA = 1
"""Number of this set of features; weights name the one that they were trained on."""

LEVELS = 3
"""Cache levels that have columns; a device with fewer repeats its last."""

INNER = 3
"""Innermost loops that an access has strides for."""

LOOP = (
    "trip: iterations per entry, mean",
    "total: iterations over the whole run",
    "entered: times the loop is entered",
    "parallel: 1 when threads share the iterations",
    "vector: log2 of the lanes asked for, 0 without",
    "jam: log2 of the copies jammed",
    "unroll: log2 of the copies unrolled",
    "tile: log2 of the iterations that one step covers, 0 for a point loop",
    "skewed: 1 when more than one iterator enters",
    "innermost: 1 when no loop is inside",
    "depth: loops around it",
    "height: loops inside, along the deepest path",
    "statements: how many are inside",
    "parts: children of its body",
    "bytes1: data of one run of the loop over the first cache",
    "bytes2: the same over the second cache",
    "bytes3: the same over the third cache",
    "work: instances of statements per run of the loop",
    "uneven: longest share of a thread over the mean, for a parallel loop",
    "cost: cycles spent on entering and counting, over all statement cycles",
)

ACCESS = (
    "write: 1 when the element is stored",
    "references: distinct accesses that move alike",
    "item: bytes of an element",
    "array1: bytes of the array over the first cache",
    "array2: bytes of the array over the second cache",
    "array3: bytes of the array over the third cache",
    *(
        f"{what}{k}: {text}, loop {k} from the innermost"
        for k in range(INNER)
        for what, text in (
            ("stride", "bytes the access moves by per iteration"),
            ("unit", "1 when it moves to the neighbour"),
            ("still", "1 when it stays"),
            ("lines", "cache lines of one run of the loop"),
        )
    ),
    "reuse: loops from the innermost to the nearest that the access does not move along",
    "all: cache lines of the whole nest",
    "visits: touches per line over the whole run",
    "private: 1 when threads touch parts of their own",
)

STATEMENT = (
    "instances: times it runs",
    "fma: multiply-adds per instance",
    "other: cheap operations",
    "dear: cycles of divisions and functions",
    "chain: dependent operations from its own element to the result",
    "plain: 1 for arithmetic that has a vector form",
    "lanes: instances side by side",
    "whole: share of the instances in whole strips",
    "copies: instances side by side through jamming",
    "sum: 1 when the innermost loop adds to one element",
    "depth: loops around it",
    "threads: threads that share it",
    "cycles: predicted cycles per instance with data in the first cache",
    "fill1: time to fill the first cache over the time to compute",
    "fill2: the same for the second cache",
    "fill3: the same for the third cache",
    "share: its part of the predicted time",
)

PROGRAM = (
    "roofline: nanoseconds that no schedule can be under",
    "flops: operations per second of roofline time, over the peak",
    "intensity: operations per byte of the arrays",
    "data1: bytes of all arrays over the first cache",
    "data2: the same over the second cache",
    "data3: the same over the third cache",
    "single: 1 for 4-byte elements",
    "threads: threads of the device",
    "statements: how many",
    "loops: how many",
    "compute: predicted compute time over the roofline",
    "fill1: predicted time to fill the first cache over the roofline",
    "fill2: the same for the second cache",
    "fill3: the same for the third cache",
    "overhead: predicted time for entering loops over the roofline",
    "barriers: times that threads meet, in time, over the roofline",
    "serial: share of the predicted time that runs on one thread",
    "guess: predicted time of the whole over the roofline",
)

KINDS = ("program", "loop", "statement", "access")
WIDTHS = {"program": len(PROGRAM), "loop": len(LOOP), "statement": len(STATEMENT),
          "access": len(ACCESS)}  # fmt: skip

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Tokens:
    """A schedule for the model.

    Attributes:
        rows: per kind of KINDS, float32 [count, WIDTHS[kind]].
        parent: int64 [tokens]; tokens are numbered kind by kind, the program (0) is its own.
        roofline: seconds that predictions are relative to.
    """

    rows: Mapping[str, Array]
    parent: Array
    roofline: float

    @property
    def count(self) -> int:
        return len(self.parent)

    @property
    def kinds(self) -> Array:
        """int64 [tokens], index into KINDS."""
        return np.repeat(np.arange(len(KINDS)), [len(self.rows[k]) for k in KINDS])


def lg(value: float) -> float:
    """log2, with nothing below 2^-20 told apart."""
    return log2(max(value, 2.0**-20))


class Extractor:
    """Features of the schedules of one program at given sizes on one device."""

    def __init__(
        self, poly: Polyhedra, scop: Scop, sizes: Mapping[str, int], device: Device
    ) -> None:
        """``scop`` is the original program: its operations and data give the roofline.

        Raises BudgetExceeded when isl cannot bound its loops.
        """
        self.sizes, self.device = dict(sizes), device
        self.roofline = Roofline.of(Facts.of(poly, scop, scop.tree, sizes), device)
        levels = list(device.levels)[:LEVELS]
        self.levels = levels + levels[-1:] * (LEVELS - len(levels))

    def tokens(self, poly: Polyhedra, scop: Scop, tree: Node) -> Tokens:
        """The features of a schedule. Raises BudgetExceeded like the analytic model."""
        return _Tokens(self, Facts.of(poly, scop, tree, self.sizes)).tokens()


class _Tokens:
    def __init__(self, extractor: Extractor, facts: Facts) -> None:
        self.device, self.levels = extractor.device, extractor.levels
        self.roofline, self.facts = extractor.roofline, facts
        self.compute = Compute(facts, self.device)
        widths = {n: s.widths for n, s in self.compute.shapes.items()}
        self.traffic = Traffic(facts, self.device, widths)
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
        self.time = {n: max(b, *self.fill[n]) for n, b in self.busy.items()}
        self.total = sum(self.time.values()) or 1e-12
        self.barriers = _barriers(facts)
        self.by_name = {p.name: p for p in facts.placed}

    def tokens(self) -> Tokens:
        rows: dict[str, list[list[float]]] = {k: [] for k in KINDS}
        found = loops(self.facts.tree)
        place = {loop.name: k + 1 for k, loop in enumerate(found)}
        parent = [0, *_loop_parents(self.facts.tree, place)]
        overhead = 0.0
        for loop in found:
            cycles = self.compute.loop_cycles(loop.name)
            overhead += cycles / self.device.hertz / self._loop_threads(loop)
            rows["loop"].append(self._loop(loop, cycles))
        first = 1 + len(found)
        owners: list[int] = []
        for k, placed in enumerate(self.facts.placed):
            rows["statement"].append(self._statement(placed))
            parent.append(place[placed.path[-1].name] if placed.path else 0)
            for group in self.traffic.groups[placed.name]:
                rows["access"].append(self._access(group))
                owners.append(first + k)
        rows["program"].append(self._program(overhead))
        parent += owners
        arrays = {
            k: np.asarray(rows[k], np.float32).reshape(len(rows[k]), WIDTHS[k]) for k in KINDS
        }
        return Tokens(arrays, np.asarray(parent, np.int64), self.roofline.seconds)

    # -- rows ------------------------------------------------------------------------------------

    def _loop_threads(self, loop: Loop) -> float:
        return max(self.threads[s] if self._inside_parallel(s, loop) else 1.0
                   for s, _ in loop.schedule)  # fmt: skip

    def _inside_parallel(self, statement: str, loop: Loop) -> bool:
        placed = self.by_name[statement]
        k = placed.parallel
        return k is not None and k <= placed.path.index(loop)

    def _loop(self, loop: Loop, cycles: float) -> list[float]:
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
            lg(marks.get("unroll", 1)), lg(covers), float(skewed), float(not inside),
            float(places[0]), float(max(len(p.path) for p in users) - 1 - places[0]),
            lg(len(names)), lg(len(body.children) if isinstance(body, Sequence) else 1),
            *(lg(held / x.bytes) for x in self.levels), lg(work), lg(uneven),
            lg(cycles / self.device.hertz / self.total),
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
                row += [lg(0.0), 0.0, 1.0, 0.0]
                continue
            row += [
                lg(move.stride(at) / CACHE_LINE), float(move.is_unit(at)),
                float(move.is_invariant(at)), lg(group.lines[at]),
            ]  # fmt: skip
        still = [k for k in range(depth) if move.is_invariant(depth - 1 - k)]
        row += [
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
        return [
            lg(placed.instances), lg(1 + ops.fma), lg(1 + ops.other), lg(1 + ops.dear),
            lg(1 + ops.chain), float(ops.is_plain), lg(shape.lanes), float(shape.full),
            lg(copies), float(summing), float(len(placed.path)), lg(threads), lg(cycles),
            *(lg(f / max(busy, 1e-12)) for f in self.fill[name]),
            lg(self.time[name] / self.total),
        ]  # fmt: skip

    def _program(self, overhead: float) -> list[float]:
        line, device = self.roofline, self.device
        serial = sum(t for n, t in self.time.items() if self.threads[n] <= 1.0)
        fills = [sum(f[k] for f in self.fill.values()) for k in range(LEVELS)]
        waiting = self.barriers * device.barrier if device.threads > 1 else 0.0
        guess = self.total + overhead + waiting
        scale = line.seconds
        return [
            lg(line.seconds * 1e9), lg(line.compute / line.seconds),
            lg(line.operations / max(1.0, line.bytes)),
            *(lg(line.bytes / x.bytes) for x in self.levels), float(line.item_bytes == 4),
            lg(device.threads), lg(len(self.facts.placed)), lg(len(loops(self.facts.tree)) + 1),
            lg(sum(self.busy.values()) / scale), *(lg(f / scale) for f in fills),
            lg(overhead / scale), lg(waiting / scale), serial / self.total, lg(guess / scale),
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


def _barriers(facts: Facts) -> float:
    """How often a parallel loop is entered."""
    entered = {
        loop.name: placed.entered(k)
        for placed in facts.placed for k, loop in enumerate(placed.path) if loop.mark("parallel")
    }  # fmt: skip
    return sum(entered.values())


RELATIONS = ("self", "above", "below", "sibling", "apart")


def relations(parent: Array) -> Array:
    """int64 [tokens, tokens]: how token j stands to token i, an index into RELATIONS."""
    n = len(parent)
    above = np.zeros((n, n), bool)
    at = parent.copy()
    rows = np.arange(n)
    for _ in range(n):
        above[rows, at] = True
        if not at.any():
            break
        at = parent[at]
    found = np.full((n, n), RELATIONS.index("apart"), np.int64)
    found[parent[:, None] == parent[None, :]] = RELATIONS.index("sibling")
    found[above] = RELATIONS.index("above")
    found[above.T] = RELATIONS.index("below")
    found[rows, rows] = RELATIONS.index("self")
    return found


def pooled(tokens: Tokens) -> Array:
    """float32 [width]: one row per schedule for models that take no trees.

    The program's features; per other kind the maximum, the minimum, the mean, and the mean over the
    token weighted by the statement's share of the predicted time.
    """
    share = 2.0 ** tokens.rows["statement"][:, -1]
    first = 1 + len(tokens.rows["loop"])
    weight = np.zeros(tokens.count, np.float32)
    weight[first : first + len(share)] = share
    for k in range(first - 1, 0, -1):  # loops weigh what is inside; children come after parents
        weight[k] = weight[1:][tokens.parent[1:] == k].sum()
    start = first + len(share)
    weight[start:] = weight[tokens.parent[start:]]
    parts = [tokens.rows["program"][0]]
    offset = 1
    for kind in KINDS[1:]:
        rows = tokens.rows[kind]
        if not len(rows):
            parts.append(np.zeros(4 * WIDTHS[kind], np.float32))
            continue
        w = weight[offset : offset + len(rows)]
        mean = (rows * w[:, None]).sum(0) / max(float(w.sum()), 1e-9)
        parts += [rows.max(0), rows.min(0), rows.mean(0), mean]
        offset += len(rows)
    return np.concatenate(parts).astype(np.float32)


def pooled_width() -> int:
    return WIDTHS["program"] + 4 * sum(WIDTHS[k] for k in KINDS[1:])


__all__ = [
    "ACCESS", "KINDS", "LOOP", "PROGRAM", "RELATIONS", "SCHEMA", "STATEMENT", "WIDTHS",
    "Extractor", "Tokens", "lg", "pooled", "pooled_width", "relations",
]  # fmt: skip
