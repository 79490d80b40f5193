"""``python -m tests.dist.models``: every model, plan, type and length against one rank.

Outputs and all gradients of unmodified models on 1 to 8 ranks must equal those of one process: in
fp64 to 1e-9, in fp32 to 1e-5, relative to max(|reference|, RMS of the model's gradients).
``--worlds 2,3 --models latte`` runs a part. One line for each case; status 1 if any is off.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from perfkit import dsp
from tests.dist.launcher import RankFailed, RanksTimedOut, launch
from tests.dist.parallel_models import (
    EXPLICIT,
    MODELS,
    built,
    distance,
    installed,
    outputs_and_gradients,
)

WORLDS = (1, 2, 3, 4, 8)
TOLERANCES = {"fp64": 1e-9, "fp32": 1e-5}
TYPES = {"fp64": torch.float64, "fp32": torch.float32}
LENGTHS = {"even": (8, 24), "uneven": (17, 51)}
# The images of TimeSformer are square.
SQUARE = {"even": (8, 16), "uneven": (17, 49)}


@dataclass(frozen=True)
class Case:
    """One comparison. ``sizes`` are the lengths of the model's two axes."""

    model: str
    sizes: tuple[int, int]
    plan: str = "auto"
    dtype: str = "fp64"


@dataclass(frozen=True)
class Outcome:
    """What a rank found: the largest relative error, what it sent forward, seconds of the plan."""

    case: Case
    error: float
    switches: int
    sent: int
    planning: float
    trouble: str = ""

    @property
    def good(self) -> bool:
        return not self.trouble and self.error < TOLERANCES[self.case.dtype]


def compare(case: Case) -> Outcome:
    """One case, on this rank."""
    model, inputs = built(case.model, *case.sizes, dtype=TYPES[case.dtype])
    reference = outputs_and_gradients(model, inputs)
    keys, kind = list(model.state_dict()), type(model)
    chosen: Any = EXPLICIT[case.model] if case.plan == "explicit" else case.plan
    begin = time.perf_counter()
    dsp.parallelize(model, None, chosen, sample=inputs)
    planning = time.perf_counter() - begin
    assert type(model) is kind and list(model.state_dict()) == keys
    counters = dsp.counters()
    counters.reset()
    error = distance(outputs_and_gradients(model, inputs), reference)
    forward = [c for c in counters if not c.stage.endswith("(backward)")]
    switches = sum(c.calls for c in forward if c.primitive == "switch")
    return Outcome(case, error, switches, sum(c.sent for c in forward), planning)


def compare_all(cases: list[Case]) -> list[Outcome]:
    """Every case, on this rank; one that raises does not keep the others from running."""
    found = []
    for case in cases:
        try:
            found.append(compare(case))
        except Exception as error:
            trouble = f"{type(error).__name__}: {error}"
            found.append(Outcome(case, float("inf"), 0, 0, 0.0, trouble))
    return found


def cases(models: list[str], plans: list[str], types: list[str], lengths: list[str]) -> list[Case]:
    return [
        Case(model, (SQUARE if model == "timesformer" else LENGTHS)[length], plan, dtype)
        for model in models
        for length in lengths
        for plan in plans
        for dtype in types
    ]


def run(world: int, wanted: list[Case], timeout: float) -> Iterator[Outcome]:
    """The worst outcome over the ranks for each case."""
    try:
        every = launch(
            world, compare_all, wanted, timeout=timeout, group_timeout=timeout / 2
        )
    except (RankFailed, RanksTimedOut) as error:
        yield from (Outcome(case, float("inf"), 0, 0, 0.0, str(error)) for case in wanted)
        return
    for outcomes in zip(*every, strict=True):
        yield max(outcomes, key=lambda o: (bool(o.trouble), o.error))


def line(world: int, found: Outcome) -> str:
    case = found.case
    text = f"{world:5} {case.model:12} {case.sizes[0]:3} x {case.sizes[1]:3} {case.plan:9}"
    text += f" {case.dtype:5} {found.error:9.1e} {found.switches:8} {found.sent:10}"
    return text + f" {found.planning:7.2f} {'ok' if found.good else 'WRONG'} {found.trouble}"


def words(text: str) -> list[str]:
    return text.split(",")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.dist.models", description=__doc__)
    parser.add_argument("--worlds", type=words, default=[str(n) for n in WORLDS])
    parser.add_argument("--models", type=words, default=list(MODELS))
    parser.add_argument("--plans", type=words, default=["auto", "explicit"])
    parser.add_argument("--types", type=words, default=list(TYPES))
    parser.add_argument("--lengths", type=words, default=list(LENGTHS))
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for each model")
    given = parser.parse_args()
    missing = [name for name in given.models if not installed(name)]
    sys.stdout.write(
        "world model         lengths  plan      type      error switches bytes sent    plan s\n"
    )
    good = total = 0
    for world in map(int, given.worlds):
        for model in given.models:
            if model in missing:
                continue
            wanted = cases([model], given.plans, given.types, given.lengths)
            for found in run(world, wanted, given.timeout):
                sys.stdout.write(line(world, found) + "\n")
                sys.stdout.flush()
                good, total = good + found.good, total + 1
    if missing:
        sys.stdout.write(f"not installed: {', '.join(missing)}\n")
    sys.stdout.write(f"{good} of {total} cases equal one rank's\n")
    return 0 if good == total else 1


if __name__ == "__main__":
    sys.exit(main())
