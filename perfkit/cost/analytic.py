"""An analytic cost model: seconds of a schedule from its loops, without running it.

It ranks candidates before anything is measured. Its terms are those of a roofline with caches
(S. Williams et al., *Roofline*, 2009; J. Treibig and G. Hager's execution-cache-memory model,
2010): the cycles of the generated inner loops, the data that every level of the memory hierarchy
has to deliver, and what loops and threads cost to start. Absolute values are rough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perfkit.cost.compute import Compute
from perfkit.cost.device import Device
from perfkit.cost.facts import Facts, Placed
from perfkit.cost.traffic import Traffic
from perfkit.ir.isl import Polyhedra
from perfkit.ir.scop import Scop
from perfkit.ir.tree import Loop, Node, Sequence, loops

OVERLAP = 0.3
"""The share of the shorter of computing and moving data that the longer one does not hide."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Predicted time of one run, in seconds, and its parts.

    ``statements`` (by name), ``loops`` (entering and counting, by name) and ``waiting`` (barriers,
    fresh pages) add up to ``seconds``. ``compute`` is inner loops with all data in L1, ``memory``
    the time to fill each cache from outside, nearest cache first; those two overlap.
    """

    statements: Mapping[str, float]
    loops: Mapping[str, float]
    waiting: float
    compute: float
    memory: tuple[float, ...]

    @property
    def seconds(self) -> float:
        return sum(self.statements.values()) + self.overhead

    @property
    def overhead(self) -> float:
        """Entering loops, and starting threads."""
        return sum(self.loops.values()) + self.waiting


def estimate(
    poly: Polyhedra, scop: Scop, tree: Node, sizes: Mapping[str, int], device: Device
) -> Estimate:
    """Predict how long ``tree`` takes as the order of ``scop`` at ``sizes`` (parameter values).

    Deterministic. Raises BudgetExceeded when isl cannot bound the loops within its budget, and
    KeyError for a parameter without a size (see :func:`assumed`).
    """
    facts = Facts.of(poly, scop, tree, sizes)
    compute = Compute(facts, device)
    return assess(compute, Traffic(facts, device, compute.widths), device)


def assess(compute: Compute, traffic: Traffic, device: Device) -> Estimate:
    """The estimate of a schedule whose operations and data are known."""
    facts = compute.facts
    memory = [0.0] * len(device.levels)
    computing = 0.0
    statements: dict[str, float] = {}
    starting: dict[str, float] = {}
    for body in compute.bodies().values():
        threads = _threads(body[0], device)
        cycles = compute.body_cycles(body) + sum(map(traffic.tlb_cycles, body))
        busy = cycles / device.hertz / threads
        each = {p.name: [traffic.seconds(p, x, threads) for x in device.levels] for p in body}
        levels = [sum(column) for column in zip(*each.values(), strict=True)]
        moving = max(levels, default=0.0)
        for loop in body[0].path:
            if loop.name not in starting:
                share = _threads(body[0], device, loop)
                starting[loop.name] = compute.loop_cycles(loop.name) / device.hertz / share
        seconds = max(busy, moving) + OVERLAP * min(busy, moving)
        own = {
            p.name: max(compute.body_cycles([p]) / device.hertz / threads, *each[p.name], 1e-12)
            for p in body
        }
        scale = seconds / sum(own.values())
        statements |= {name: scale * value for name, value in own.items()}
        computing += busy
        memory = [a + b for a, b in zip(memory, levels, strict=True)]
    waiting = _barriers(facts, facts.tree, device) * device.barrier
    waiting += traffic.fresh_pages(facts) * device.page_fault
    return Estimate(statements, starting, waiting, computing, tuple(memory))


def assumed(scop: Scop, known: Mapping[str, int]) -> dict[str, int]:
    """``known`` sizes, and guesses for the others: about 1000, 100 for the length of time loops.

    A size that bounds no array is taken for the length of a time loop.
    """
    shapes = {n for a in scop.arrays for e in a.shape for n in e.names()}
    return {n: known.get(n, 1000 if n in shapes else 100) for n in scop.parameters}


def _threads(placed: Placed, device: Device, loop: Loop | None = None) -> float:
    """How many threads the work is effectively spread over (1 outside of parallel loops)."""
    k = placed.parallel
    if k is None or (loop is not None and placed.path.index(loop) < k):
        return 1.0
    trip = placed.trips[k].mean
    rounds = -(-trip // device.threads)
    return max(1.0, min(float(device.threads), trip / max(1.0, rounds)))


def _barriers(facts: Facts, tree: Node, device: Device) -> float:
    """How often threads start or meet."""
    if device.threads < 2:
        return 0.0
    entered = {
        loop.name: 0.0 if placed.trips[k].is_single else placed.entered(k)
        for placed in facts.placed for k, loop in enumerate(placed.path)
    }  # fmt: skip
    trips = {
        loop.name: placed.trips[k].total
        for placed in facts.placed for k, loop in enumerate(placed.path)
    }  # fmt: skip

    def has_parallel(node: Node) -> bool:
        return any(loop.mark("parallel") for loop in loops(node))

    def visit(node: Node, times: float) -> float:
        match node:
            case Loop():
                if node.mark("parallel"):
                    return entered[node.name]
                return visit(node.body, trips[node.name])
            case Sequence(children=children):
                found = sum(visit(c, times) for c in children if has_parallel(c))
                # what stands between parallel loops is run by one thread, the others wait
                alone = any(not has_parallel(c) for c in children)
                return found + (times if alone else 0.0)
            case _:
                return 0.0

    return 1.0 + visit(tree, 1.0) if has_parallel(tree) else 0.0


__all__ = ["Device", "Estimate", "assess", "assumed", "estimate"]
