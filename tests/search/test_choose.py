"""What is kept of the measured candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any, cast

import pytest

from perfkit.analysis.dependences import Analysis
from perfkit.cost.scorer import Score
from perfkit.errors import CompileError
from perfkit.runtime.kernel import Kernel
from perfkit.runtime.machine import Machine
from perfkit.schedule import seeds
from perfkit.schedule.seeds import Seed
from perfkit.search.auto import Problem
from perfkit.search.beam import Ranked
from perfkit.search.choose import measured
from tests.codegen.harness import scheduled
from tests.programs_ir import JACOBI_1D


def chosen(times: dict[str, Sequence[float]], failing: str = "") -> str:
    """The name kept when the candidates take these seconds, round by round."""
    state = seeds.original(scheduled(JACOBI_1D)).state
    found = [Ranked(Seed(name, (), state), Score(1.0, 0.1)) for name in times]
    problem = Problem(state, Analysis(), Machine.detect())

    def build(seed: Seed, source: str) -> Kernel:
        if source == failing:
            raise CompileError("no")
        return cast(Kernel, seed.name)

    def run(kernel: Any) -> Callable[[], float]:
        taken = cycle(times[kernel])
        return lambda: next(taken)

    return measured(problem, found, lambda s: s.name, build, run).seed.name


@pytest.mark.parametrize(
    ("times", "kept"),
    [
        ({"original": [1.0], "fast": [0.5], "slow": [2.0]}, "fast"),
        ({"slow": [2.0], "original": [1.0]}, "original"),
        ({"fast": [0.99], "original": [1.0]}, "original"),  # within noise
        ({"lucky": [0.1, 2.0, 2.0], "original": [1.0]}, "original"),  # fast once only
        # Many short rounds: mostly, or only sometimes, faster.
        ({"fast": [8e-4, 9e-4, 9e-4, 1.1e-3], "original": [1e-3]}, "fast"),
        ({"lucky": [7e-4, 7e-4, 8.9e-4, 1.1e-3, 1.1e-3], "original": [1e-3]}, "original"),
    ],
)
def test_the_fastest_is_kept_and_the_original_where_nothing_is_clearly_faster(
    times: dict[str, Sequence[float]], kept: str
) -> None:
    assert chosen(times) == kept


def test_a_candidate_that_does_not_compile_is_left_out() -> None:
    times = {"original": [1.0], "fast": [0.5], "broken": [0.1]}
    assert chosen(times, failing="broken") == "fast"
    with pytest.raises(CompileError):
        chosen(times, failing="original")
