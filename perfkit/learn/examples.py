"""From measured rows to training examples: tokens and targets."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from perfkit import log
from perfkit.analysis.dependences import Analysis
from perfkit.cost.device import Device
from perfkit.cost.features import Extractor
from perfkit.cost.tokens import Tokens
from perfkit.errors import PerfkitError
from perfkit.learn.dataset import Entry, split_of
from perfkit.learn.looper import Looped, looped
from perfkit.learn.prepare import ISL_OPERATIONS
from perfkit.learn.source import read
from perfkit.schedule import script
from perfkit.schedule.base import TreeTransform
from perfkit.schedule.state import State

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Group:
    """The schedules of one program.

    Attributes:
        split: see :func:`perfkit.learn.dataset.split_of`.
        seconds: float64 [schedules], the fastest round.
        again: float64 [schedules], another round, for the noise floor; NaN without one.
        original: position of the original order, or -1.
    """

    name: str
    family: str
    split: str
    tokens: tuple[Tokens, ...]
    looper: tuple[Looped, ...]
    seconds: Array
    again: Array
    original: int

    @property
    def target(self) -> Array:
        """float64 [schedules]: log(seconds / roofline)."""
        return np.log(self.seconds / np.asarray([t.roofline for t in self.tokens]))


def group_of(entry: Entry, device: Device) -> Group | None:
    """The examples of one program; None when fewer than three schedules have features."""
    tokens: list[Tokens] = []
    looper: list[Looped] = []
    seconds: list[float] = []
    again: list[float] = []
    original = -1
    try:
        program = read(entry.sample.text)
        analysis = Analysis(4 * ISL_OPERATIONS, parallel_reductions=True)
        start = State.start(program.scop, entry.sample.fp)
        sizes = dict(entry.sample.sizes)
        extractor = Extractor(
            analysis.polyhedra(program.scop), program.scop, sizes, device, entry.sample.fp
        )
    except PerfkitError as error:
        log.get("learn").info("program %d has no features: %s", entry.sample.number, error)
        return None
    for row in entry.timed:
        try:
            state = apply(start, row.script, analysis)
            poly = analysis.polyhedra(state.scop)
            found = extractor.tokens(poly, state.scop, state.tree)
        except PerfkitError as error:
            log.get("learn").info("a schedule has no features: %s", error)
            continue
        if row.kind == "original":
            original = len(tokens)
        tokens.append(found)
        looper.append(looped(state.scop, state.tree, sizes))
        times = sorted(row.seconds)
        seconds.append(times[0])
        again.append(times[1] if len(times) > 1 else math.nan)
    if len(tokens) < 3:
        return None
    return Group(
        f"{entry.sample.seed}-{entry.sample.number}", entry.sample.family, split_of(entry.sample),
        tuple(tokens), tuple(looper), np.array(seconds), np.array(again), original,
    )  # fmt: skip


def apply(start: State, text: str, analysis: Analysis) -> State:
    """Replay a script that was legal when it was measured; nothing is proved without need.

    Only where a step has several forms, the first legal one is looked for as it was then.
    """
    state = start
    for step in script.parse(text):
        forms = step.rewrites(state, analysis) if isinstance(step, TreeTransform) else ()
        if len(forms) == 1:
            state = state.with_tree(forms[0])
        else:
            state = script.apply_step(state, step, analysis)
    return state


def select(found: Iterable[Group], split: str) -> list[Group]:
    return [g for g in found if g.split == split]


__all__ = ["Group", "apply", "group_of", "select"]
