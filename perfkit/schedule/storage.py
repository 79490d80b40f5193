"""Which storage steps would free schedules, found cheaply: the programs' temporaries, expanded."""

from __future__ import annotations

from perfkit.analysis.dependences import Analysis
from perfkit.errors import TransformError
from perfkit.ir.affine import Affine
from perfkit.ir.isl import budget_errors
from perfkit.ir.scop import Array, Scop
from perfkit.schedule.expand import Expand, Privatize, Web, plan
from perfkit.schedule.flow import Flows
from perfkit.schedule.relayout import Relayout
from perfkit.schedule.split import Split
from perfkit.schedule.state import State, Transform

SMALL_EXTENT = 64
"""A dimension of constant extent up to this costs nothing worth counting."""


def auto_expand(state: State, analysis: Analysis | None = None) -> tuple[Transform, ...]:
    """Expansions that remove storage-only dependences at a reasonable price in memory.

    A variable is expanded where loops reuse its elements for unrelated values. The new array may
    not have more dimensions that grow with the sizes than the largest argument; inner loops come
    first then, since they are where parallel and vector loops are gained. Raises BudgetExceeded.
    """
    scop = state.scop
    analysis = analysis or Analysis()
    wanted = [a for a in scop.arrays if a.name in scop.written]
    if not wanted:
        return ()
    allowed = max((growth(a.shape) for a in scop.arrays if not a.local), default=0)
    flows = Flows(analysis.polyhedra(scop), scop.tree, [a.name for a in wanted])
    found: list[Transform] = []
    for array in wanted:
        try:
            with budget_errors():
                webs = plan(flows, scop.tree, array.name)
        except TransformError:
            continue
        step = _affordable(array, webs, allowed)
        if step is not None:
            found.append(step)
    return tuple(found)


def auto_snapshot(state: State) -> tuple[Relayout, ...]:
    """Snapshots of arrays that a sum reads while other sums write them, where they may pay.

    They pay where a loop of the statement does not move the access, so that each element is read
    more often than it is copied. Whether the values are those from before is for the step to prove.
    """
    scop = state.scop
    found: dict[Relayout, None] = {}
    for statement in scop.statements:
        if statement.write not in statement.reads:
            continue
        for access in statement.reads:
            array = scop.array(access.array)
            elsewhere = access != statement.write and array.name in scop.written
            if elsewhere and not array.local and array.rank > 1:
                used = {n for index in access.indices for n in index.names()}
                if set(statement.iterators) - used:
                    found[Relayout(array.name, tuple(range(array.rank)), str(access))] = None
    return tuple(found)


def growth(shape: tuple[Affine, ...]) -> int:
    """How many dimensions of a shape grow with the sizes."""
    return sum(not (e.is_constant and e.const <= SMALL_EXTENT) for e in shape)


def _affordable(array: Array, webs: tuple[Web, ...], allowed: int) -> Expand | None:
    if not any(web.dimensions for web in webs):
        return None
    budget = max(allowed, 1) - growth(array.shape)
    if all(growth(tuple(d.extent for d in web.dimensions)) <= budget for web in webs):
        return Expand(array.name)
    if len(webs) > 1:
        return None
    kept: list[str] = []
    for dimension in reversed(webs[0].dimensions):
        cost = growth((dimension.extent,))
        if cost <= budget:
            budget -= cost
            kept.insert(0, dimension.loop)
    return Expand(array.name, tuple(kept)) if kept else None


def expanded(state: State, analysis: Analysis | None = None) -> tuple[State, tuple[Transform, ...]]:
    """The state after :func:`auto_expand`, and its steps."""
    steps = auto_expand(state, analysis)
    for step in steps:
        state = step.apply(state)
    return state, steps


def temporaries(scop: Scop) -> tuple[str, ...]:
    """Variables whose final value nobody reads: what storage steps may change freely."""
    return tuple(a.name for a in scop.arrays if a.local or not a.live_out)


__all__ = [
    "SMALL_EXTENT", "Expand", "Privatize", "Relayout", "Split", "auto_expand", "auto_snapshot",
    "expanded", "growth", "temporaries",
]  # fmt: skip
