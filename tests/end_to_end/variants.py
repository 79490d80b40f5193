"""The schedules a program is tried under."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from perfkit.analysis.dependences import Analysis
from perfkit.analysis.reductions import reductions
from perfkit.errors import BudgetExceeded, ScheduleError
from perfkit.schedule import pluto, script, seeds
from perfkit.schedule.random import random_script
from perfkit.schedule.seeds import Seed, Sizes
from perfkit.schedule.state import State
from perfkit.schedule.steps import Steps
from tests.end_to_end.subjects import Subject

TILES = (2, 3, 4, 5)
SIMD = (16, 32, 64)
SMALL = Sizes(outer=4, inner=6)
"""Tiles of which the tiny programs have several, and ragged ones at the edges."""
STEPS = 8


@dataclass(frozen=True)
class Variant:
    """One schedule of one program, to be compiled for vectors of ``simd_bytes``."""

    name: str
    state: State
    script: str
    simd_bytes: int


@dataclass(frozen=True)
class Plan:
    """Which variants to make: all candidates or a few, and how many random scripts."""

    scripts: int
    seed: int = 0
    sizes: Sizes = SMALL
    everything: bool = True


def variants(subject: Subject, analysis: Analysis, plan: Plan) -> Iterator[Variant]:
    """The original, the candidates and random scripts.

    A program with floating-point reductions is tried under both settings of ``fp``.
    """
    poly = analysis.polyhedra(subject.scop)
    loose = len(reductions(poly, "reassociate")) > len(reductions(poly, "strict"))
    fps = ("strict", "reassociate") if loose else ("strict",)
    for fp in fps if plan.everything else ("strict",):
        start = State.start(subject.scop, fp)
        simd_bytes = 32 if fp == "strict" else 16
        make = seeds.candidates if plan.everything else _few
        for found in make(start, simd_bytes, analysis, plan.sizes):
            yield Variant(f"{found.name}-{fp}", found.state, found.script, simd_bytes)
    rng = Random(f"{plan.seed} {subject.program.name} {subject.frontend}")
    for k in range(plan.scripts):
        start = State.start(subject.scop, fps[k % len(fps)])
        count = rng.randint(1, STEPS)
        steps, state = random_script(start, rng, count, analysis, tile_sizes=TILES)
        yield Variant(f"random{k}-{start.fp}", state, script.show(steps), rng.choice(SIMD))


def _few(start: State, simd_bytes: int, analysis: Analysis, sizes: Sizes) -> list[Seed]:
    """The original and one candidate of each family, without the time that all of them take."""
    base = Steps(start, analysis)
    found = [seeds.original(start)]
    try:
        order = pluto.schedule(base.dependences, pluto.Options("smart"))
        made = {
            "pluto": seeds.tiled(base, order, simd_bytes, sizes),
            "block": seeds.blocked(base, None, simd_bytes, sizes),
        }
    except (BudgetExceeded, ScheduleError):
        return found
    return found + [Seed(n, s.done, s.state) for n, s in made.items()]
