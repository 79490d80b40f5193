"""The schedules worth trying for a program, best-looking first, without any measuring.

They are the seeds of :mod:`perfkit.schedule.seeds`, ordered by the time that
:mod:`perfkit.cost.analytic` estimates. Where that tells two apart by no more than a few percent, a
plain preference does: contractions blocked for registers, then the original order with its loops
marked, then the Pluto-like tilings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, log1p

from perfkit import log
from perfkit.analysis.dependences import Analysis
from perfkit.cost.analytic import assumed, estimate
from perfkit.cost.device import Device
from perfkit.errors import BudgetExceeded
from perfkit.ir.tree import loops
from perfkit.runtime.machine import Machine
from perfkit.schedule import seeds
from perfkit.schedule.seeds import Seed
from perfkit.schedule.state import State

_PREFERENCE = ("register", "parallel", "pluto-smart", "pluto-max", "block", "pluto-min")


CLOSE = 0.03
"""Estimates that differ by less than about this share count as equal."""


def candidates(
    state: State,
    analysis: Analysis,
    machine: Machine,
    sizes: Mapping[str, int] | None = None,
    threads: int | None = None,
) -> list[Seed]:
    """Distinct candidates, best-looking first; the original is always among them.

    ``sizes`` are the values of parameters that are known; others are guessed.
    """
    try:
        found = seeds.candidates(state, machine.simd_bytes or 16, analysis)
    except BudgetExceeded as error:
        log.get("search").warning("the original order is kept: %s", error)
        return [seeds.original(state)]
    return rank(found, sizes or {}, analysis, machine, threads)


def rank(
    found: Sequence[Seed],
    sizes: Mapping[str, int],
    analysis: Analysis,
    machine: Machine,
    threads: int | None = None,
) -> list[Seed]:
    """The same schedules, the one with the shortest estimated time first.

    ``threads`` is how many a kernel runs on (default: all cores).
    """
    device = Device.of(machine, threads)

    def key(seed: Seed) -> tuple[float, tuple[int, int, str]]:
        scop = seed.state.scop
        try:
            known = assumed(scop, sizes)
            guess = estimate(analysis.polyhedra(scop), scop, seed.state.tree, known, device)
        except BudgetExceeded as error:
            log.get("search").info("%s is ranked last: %s", seed.name, error)
            return (inf, _rank(seed))
        log.get("search").debug("%s: about %.3g s", seed.name, guess.seconds)
        return (_step(guess.seconds), _rank(seed))

    return sorted(found, key=key)


def _step(seconds: float) -> float:
    """The time on a logarithmic scale, in whole steps of ``CLOSE``."""
    return float(round(log1p(seconds * 1e9) / CLOSE))


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
