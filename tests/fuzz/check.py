"""One fuzz case: a random program, a random script, and everything that must hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from perfkit.analysis.dependences import Analysis
from perfkit.codegen.interpret import run
from perfkit.errors import BudgetExceeded, IllegalSchedule
from perfkit.ir.scop import Scop
from perfkit.ir.tree import Node
from perfkit.schedule import script
from perfkit.schedule.base import TreeTransform
from perfkit.schedule.random import random_script
from perfkit.schedule.state import State
from tests.brute import Brute, TooLarge
from tests.fuzz.programs import random_program
from tests.programs_ir import parse_scop

ACCEPTED_SIZES = (1, 3, 6)
_FIRST = (2, 3, 4, 5, 6, 8, 11, 15, 20, 26, 45, 70)
# Tiles of tiles reach 5 * 5 * 5; a guard near the end may need one particular size, 1 included.
REFUSED_SIZES = (*_FIRST, *(n for n in range(1, 131) if n not in _FIRST))
RUN_SIZE = 5
TILES = (2, 3, 4, 5)
BUDGET = 2_000_000
"""Operations of isl; a program that needs more is left out, as perfkit leaves it alone."""


@dataclass
class Counts:
    """What a run of the fuzz did."""

    cases: int = 0
    steps: int = 0
    refusals: int = 0
    over_budget: int = 0
    unconfirmed: int = 0
    too_large: int = 0
    runs: int = 0
    compiled: int = 0

    def add(self, other: Counts) -> None:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Outcome:
    """A case's numbers, its program and script, and what went wrong (empty when nothing did)."""

    seed: int
    text: str
    script: str = ""
    fp: str = "strict"
    failures: list[str] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    state: State | None = None

    def reproducer(self) -> str:
        lines = [f"seed {self.seed}, fp={self.fp}", self.text, "script:", self.script]
        return "\n".join(lines + [f"FAILED: {f}" for f in self.failures])


class Enumerations:
    """Brute-force checkers of one program, made on demand."""

    def __init__(self, scop: Scop, fp: str) -> None:
        self.scop, self.fp = scop, fp
        self._made: dict[int, Brute | None] = {}

    def at(self, size: int) -> Brute | None:
        if size not in self._made:
            if any(made is None and smaller < size for smaller, made in self._made.items()):
                return None
            try:
                self._made[size] = Brute(self.scop, {"n": size}, self.fp)
            except TooLarge:
                self._made[size] = None
        return self._made[size]

    def violation(
        self, tree: Node, sizes: tuple[int, ...], privatised: bool, budget: int = 1_500_000
    ) -> str | None:
        """The first violated pair at any of the sizes; None when there is none.

        Raises TooLarge when none was found and some sizes were too large for the budget of pairs.
        """
        skipped = False
        for size in sizes:
            brute = self.at(size) if budget > 0 else None
            if brute is None:
                skipped = True
                continue
            budget -= len(brute.source)
            found = brute.violation(tree, privatised)
            if found:
                return found
        if skipped:
            raise TooLarge
        return None


def random_arrays(scop: Scop, sizes: dict[str, int], seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Arguments with small values, the same for the same seed."""
    rng = np.random.default_rng(seed)
    result = {}
    for array in scop.arrays:
        if array.local:
            continue
        shape = tuple(e.evaluate(sizes) for e in array.shape)
        if array.dtype.startswith("float"):
            result[array.name] = rng.uniform(-1, 1, shape).astype(array.dtype)
        else:
            result[array.name] = rng.integers(-9, 10, shape).astype(array.dtype)
    return {k: np.asarray(v) for k, v in result.items()}


def agree(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], fp: str) -> bool:
    """Bit for bit under strict; up to rounding where floats may be reassociated."""
    if fp == "strict" or a.dtype.kind != "f":
        return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
    tolerance = 1e-4 if a.dtype == np.float32 else 1e-9
    return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))


def run_case(seed: int, steps: int = 5) -> Outcome:
    """Draw a program and a script from ``seed`` and check everything but compiled code."""
    rng = Random(seed)
    text = random_program(rng)
    fp = "reassociate" if rng.random() < 0.25 else "strict"
    outcome = Outcome(seed, text, fp=fp)
    outcome.counts.cases = 1
    scop = parse_scop(text)
    known: dict[Scop, Enumerations] = {}
    privatised = rng.random() < 0.5
    analysis = Analysis(BUDGET, parallel_reductions=privatised)
    start = State.start(scop, fp)
    try:
        analysis.dependences(scop, fp)
    except BudgetExceeded:
        outcome.counts.over_budget = 1
        return outcome

    def brute(scop: Scop) -> Enumerations:
        return known.setdefault(scop, Enumerations(scop, fp))

    def refused(state: State, step: TreeTransform) -> None:
        outcome.counts.refusals += 1
        for tree in step.rewrites(state, analysis):
            try:
                found = brute(state.scop).violation(tree, REFUSED_SIZES, privatised)
            except TooLarge:
                outcome.counts.too_large += 1
                continue
            if found is None:
                outcome.counts.unconfirmed += 1
                outcome.failures.append(f"{step} was refused, but reverses no pair")

    def only_illegal(state: State, step: TreeTransform) -> None:
        try:
            step.apply(state, analysis)
        except IllegalSchedule:
            refused(state, step)
        except Exception as error:
            if type(error).__module__ != "perfkit.errors":
                outcome.failures.append(f"{step}: {error!r}")

    taken, end = random_script(
        start, rng, rng.randint(1, steps), analysis, tile_sizes=TILES, refused=only_illegal,
        storage=rng.choice((0, 1, 1, 2)),
    )  # fmt: skip
    outcome.script = script.show(taken)
    outcome.counts.steps = len(taken)
    state = start
    for step in taken:
        state = script.apply_step(state, step, analysis)
        try:
            found = brute(state.scop).violation(state.tree, ACCEPTED_SIZES, privatised)
        except TooLarge:
            found = None
        if found:
            outcome.failures.append(f"{step} was accepted, but violates {found}")
            return outcome
    try:
        again = script.replay(start, outcome.script, analysis)
    except BudgetExceeded:
        outcome.counts.over_budget = 1
        return outcome
    if again != end:
        outcome.failures.append("replaying the text of the script gives another schedule")
    outcome.state = end
    expected = random_arrays(scop, {"n": RUN_SIZE}, seed)
    found_arrays = {k: v.copy() for k, v in expected.items()}
    run(scop, {"n": RUN_SIZE}, expected, {})
    run(end.scop, {"n": RUN_SIZE}, found_arrays, {}, end.tree)
    outcome.counts.runs = 1
    for name, value in expected.items():
        if not agree(value, found_arrays[name], fp):
            outcome.failures.append(f"the oracle gives another {name} under the schedule")
    return outcome
