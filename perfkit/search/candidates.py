"""The schedules worth trying for a program, best-looking first, without any measuring.

They are the seeds of :mod:`perfkit.schedule.seeds`. The order is a plain preference that stands in
for a cost model: contractions blocked for registers, then the original order with its loops
marked, then the Pluto-like tilings.
"""

from __future__ import annotations

from perfkit import log
from perfkit.analysis.dependences import Analysis
from perfkit.errors import BudgetExceeded
from perfkit.ir.tree import loops
from perfkit.runtime.machine import Machine
from perfkit.schedule import seeds
from perfkit.schedule.seeds import Seed
from perfkit.schedule.state import State

_PREFERENCE = ("register", "parallel", "pluto-smart", "pluto-max", "block", "pluto-min")


def candidates(state: State, analysis: Analysis, machine: Machine) -> list[Seed]:
    """Distinct candidates, best-looking first; the original is always among them."""
    try:
        found = seeds.candidates(state, machine.simd_bytes or 16, analysis)
    except BudgetExceeded as error:
        log.get("search").warning("the original order is kept: %s", error)
        return [seeds.original(state)]
    return sorted(found, key=_rank)


def _rank(seed: Seed) -> tuple[int, int, str]:
    """Family first; within a family, expanded forms first: they have more freedom."""
    family, _, form = seed.name.partition("-block")
    if any(x.mark("jam") for x in loops(seed.state.tree)):
        family, form = "register", form
    order = next((k for k, f in enumerate(_PREFERENCE) if family.startswith(f)), len(_PREFERENCE))
    if seed.name == "original":
        order += 1
    detail = ("notile" in seed.name) + ("all" in seed.name) - ("expanded" in seed.name)
    return (order, detail, seed.name)
