"""The schedules worth trying for a program, best-looking first, without any measuring.

They are the seeds (:mod:`perfkit.schedule.seeds`) and the blocked forms of
:mod:`perfkit.schedule.blocking`. The order is a plain preference: blocked contractions, then the
original order with its loops marked, then the Pluto-like tilings. It stands in for a cost model.
"""

from __future__ import annotations

from collections.abc import Iterator

from perfkit import log
from perfkit.analysis.dependences import Analysis
from perfkit.errors import BudgetExceeded, ScheduleError
from perfkit.ir.tree import Node, loops
from perfkit.runtime.machine import Machine
from perfkit.schedule import blocking, pluto, seeds
from perfkit.schedule.seeds import Seed
from perfkit.schedule.state import State
from perfkit.schedule.steps import Steps
from perfkit.schedule.transforms import Order

_PREFERENCE = (
    "blocked-expanded", "blocked", "parallel-expanded", "parallel", "pluto-smart-expanded",
    "pluto-smart", "pluto-max-expanded", "pluto-max", "pluto-min-expanded", "pluto-min",
    "pluto-smart-notile", "pluto-max-notile",
)  # fmt: skip


def candidates(state: State, analysis: Analysis, machine: Machine) -> list[Seed]:
    """Distinct candidates, best-looking first; the original is among them, always."""
    found = {}
    for seed in [*_blocked(state, analysis, machine), *_seeds(state, analysis, machine)]:
        found.setdefault(seed.name, seed)
    distinct: dict[tuple[object, Node], Seed] = {}
    for seed in sorted(found.values(), key=_rank):
        distinct.setdefault((seed.state.scop, seed.state.tree), seed)
    return list(distinct.values())


def _rank(seed: Seed) -> tuple[int, str]:
    if seed.name.startswith("blocked") and not any(x.mark("jam") for x in loops(seed.state.tree)):
        return (3, seed.name)  # nothing to keep in registers: no better than marked loops
    order = _PREFERENCE.index(seed.name) if seed.name in _PREFERENCE else len(_PREFERENCE)
    return (order if seed.name != "original" else len(_PREFERENCE) + 1, seed.name)


def _seeds(state: State, analysis: Analysis, machine: Machine) -> list[Seed]:
    try:
        return seeds.candidates(state, machine.simd_bytes or 16, analysis)
    except BudgetExceeded as error:
        log.get("search").warning("the original order is kept: %s", error)
        return [seeds.original(state)]


def _blocked(state: State, analysis: Analysis, machine: Machine) -> Iterator[Seed]:
    """Every statement in a nest of its own as far as that is legal, then blocked."""
    sizes = blocking.Sizes(simd_bytes=machine.simd_bytes or 16)
    try:
        start = Steps(state, analysis)
        bases = [("blocked", start), ("blocked-expanded", seeds.expanded(start))]
        for name, base in bases:
            if name.endswith("expanded") and not base.done:
                continue
            steps = base.copy()
            order = pluto.schedule(base.dependences, pluto.Options("min"))
            steps.take(Order.of(order.tree))
            more, end = blocking.block(steps.state, analysis, sizes)
            yield Seed(name, (*steps.done, *more), end)
    except (BudgetExceeded, ScheduleError) as error:
        log.get("search").info("no blocked form: %s", error)
