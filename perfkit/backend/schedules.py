"""The schedule of a region: the order that the lowering chose with its loops marked, or one
given as a script."""

from __future__ import annotations

from collections.abc import Iterator

from perfkit import log
from perfkit.analysis.dependences import Analysis
from perfkit.errors import BudgetExceeded, ScheduleError
from perfkit.ir.tree import Loop, Node, Sequence, loops
from perfkit.runtime.machine import Machine
from perfkit.schedule import script, seeds
from perfkit.schedule.locality import Locality, is_long, lanes
from perfkit.schedule.seeds import Seed
from perfkit.schedule.state import State
from perfkit.schedule.steps import Steps
from perfkit.schedule.transforms import Jam, Parallelize, Vectorize

REGION = "region"

LONG = 4096
"""Iterations of single statements that are worth sharing among threads."""

REGISTERS = 8
"""Vectors that a tile of a product keeps; as many again hold operands."""

ACCUMULATORS = 4
"""Vectors of partial results that a reduction keeps, to hide the latency of an addition."""


def marked(state: State, analysis: Analysis, machine: Machine) -> Seed:
    """The program's own order, outermost parallel loops on threads, innermost ones in lanes."""
    start = Steps(state, analysis)
    simd_bytes = machine.simd_bytes or 16
    steps = seeds.parallel(start, simd_bytes)
    for loop in list(_outermost(steps.tree)):
        # Starting threads costs more than a short loop of single statements.
        if loops(loop.body) or is_long(steps.dependences.polyhedra, loop, LONG):
            steps.attempt(Parallelize(loop.name))
    locality = Locality.of(steps.state.scop, steps.tree)
    for loop in loops(steps.tree):
        inside = loops(loop.body)
        if any(x.mark("vector") for x in (loop, *inside)) or loop.mark("parallel"):
            continue
        # Around one loop that sums: results in registers, several at a time.
        product = len(inside) == 1 and inside[0] is loop.body and locality.suits_lanes(loop.name)
        if inside and not (product and _gathers(locality, inside[0].name)):
            continue
        width = lanes(steps.state.scop, loop, simd_bytes)
        for parts in (ACCUMULATORS, ACCUMULATORS // 2, 1):
            if not is_long(steps.dependences.polyhedra, loop, parts * width):
                continue
            if steps.attempt(Vectorize(loop.name, parts * width)):
                if product:
                    _jam_rows(steps, loop.name, REGISTERS // parts)
                break
    return Seed(REGION, steps.done, steps.state)


def _jam_rows(steps: Steps, columns: str, rows: int) -> None:
    """Take several rows of a product at once: each vector that is loaded serves them all."""
    for loop in loops(steps.tree):
        inner = loop.body
        if isinstance(inner, Loop) and inner.name == columns and not loop.mark("parallel"):
            while rows > 1 and not is_long(steps.dependences.polyhedra, loop, rows):
                rows //= 2
            if rows > 1:
                steps.attempt(Jam(loop.name, rows))
            return


def _gathers(locality: Locality, loop: str) -> bool:
    """Whether the loop walks some array in steps of more than an element."""
    walks = locality.by_loop.get(loop, ())
    return any(not (w.is_unit or w.is_invariant) for w in walks)


def _outermost(tree: Node) -> Iterator[Loop]:
    """Outermost loops of nests in which nothing is parallel yet."""
    match tree:
        case Loop():
            if not any(loop.mark("parallel") for loop in loops(tree)):
                yield tree
        case Sequence(children=children):
            for child in children:
                yield from _outermost(child)


def named(name: str, state: State, analysis: Analysis, machine: Machine) -> Seed:
    """ "region" for the marked order, else the schedule that a script leads to.

    Raises ScriptError, TransformError or IllegalSchedule for a script that cannot be applied.
    """
    if name == REGION:
        return best_effort(state, analysis, machine)
    steps = script.parse(name)
    return Seed("script", steps, script.replay(state, steps, analysis))


def best_effort(state: State, analysis: Analysis, machine: Machine) -> Seed:
    """The marked order, or the plain one when the analysis is too costly."""
    try:
        return marked(state, analysis, machine)
    except (BudgetExceeded, ScheduleError) as error:
        log.get("backend").info("the region's loops stay unmarked: %s", error)
        return seeds.original(state)


__all__ = ["REGION", "best_effort", "marked", "named"]
