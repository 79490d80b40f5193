"""Time tiles that fit a cache, and recurrences that run side by side."""

from __future__ import annotations

import pytest

from perfkit.analysis.dependences import Analysis
from perfkit.errors import IllegalSchedule
from perfkit.ir.tree import find_loop
from perfkit.schedule import pluto, script, seeds
from perfkit.schedule.flow import preserves_flow
from perfkit.schedule.recurrences import jam_recurrences
from perfkit.schedule.state import State
from perfkit.schedule.steps import Steps
from perfkit.schedule.timetile import FORMS, is_time_band, shapes
from tests.programs_ir import parse_scop, program
from tests.schedule.storage_programs import same_results


def start(name: str) -> Steps:
    return Steps(State.start(program(name)), Analysis())


def time_bands(name: str) -> list[tuple[str, ...]]:
    steps = start(name)
    found = pluto.schedule(steps.dependences)
    return [b.loops for b in found.bands if is_time_band(steps.state.scop, found.tree, b)]


@pytest.mark.parametrize("name", ["jacobi_1d", "jacobi_2d", "seidel"])
def test_sweeps_have_a_time_band(name: str) -> None:
    assert len(time_bands(name)) == 1


@pytest.mark.parametrize("name", ["matmul", "trisolv", "producer_consumer"])
def test_other_programs_have_none(name: str) -> None:
    assert time_bands(name) == []


@pytest.mark.parametrize("cache", [1 << 12, 1 << 16, 1 << 19, 1 << 21])
def test_blocks_fit_half_the_cache(cache: int) -> None:
    """Two arrays of doubles; a tile is as long in time as it takes to slide past itself."""
    steps = start("jacobi_2d")
    found = pluto.schedule(steps.dependences)
    (band,) = found.bands
    for form, sizes in shapes(steps.state.scop, found.tree, band, cache).items():
        (_, time), (_, rows), *row = sizes
        assert 2 * time == rows
        if form == "blocks" and rows > 4:
            assert cache // 8 < rows * row[0][1] * 16 <= cache // 2


@pytest.mark.parametrize("form", FORMS)
def test_a_stencil_runs_as_wavefronts_of_time_tiles(form: str) -> None:
    steps = start("jacobi_2d")
    made = seeds.timed(steps, pluto.schedule(steps.dependences), 32, 1 << 11, form)
    assert made is not None
    text = seeds.Seed("", made.done, made.state).script
    assert "Wavefront(s_t, i_t)\nParallelize(i_t)" in text
    preserves_flow(steps.state.scop, made.state)
    same_results(steps.state.scop, made.state)


def test_a_program_without_time_has_no_time_tiles() -> None:
    steps = start("matmul")
    assert seeds.timed(steps, pluto.schedule(steps.dependences), 32, 1 << 19, "rows") is None


# -- recurrences -----------------------------------------------------------------------------

ROWS = """
params n
context n >= 1
array A[n, n] float64
S0[i, j]: 0 <= i < n and 1 <= j < n: A[i, j] = A[i, j - 1] * 0.5 + A[i, j]
tree
for i(S0: i) for j(S0: j) S0
"""
CHAIN = """
params n
context n >= 1
array A[n, n] float64
S0[i, j]: 1 <= i < n and 1 <= j < n: A[i, j] = A[i, j - 1] + A[i - 1, n - j]
tree
for i(S0: i) for j(S0: j) S0
"""


def jammed(steps: Steps) -> str:
    return "\n".join(map(str, steps.done)) if jam_recurrences(steps, 4) else ""


def test_independent_rows_run_side_by_side() -> None:
    steps = Steps(State.start(parse_scop(ROWS)), Analysis())
    assert jammed(steps) == "Jam(i, 4)"
    same_results(steps.state.original, steps.state)


NINE = """
params n
context n >= 1
array A[n, n] float64
S0[i, j]: 1 <= i < n - 1 and 1 <= j < n - 1: A[i, j] = A[i - 1, j + 1] + A[i, j - 1] + A[i + 1, j]
tree
for i(S0: i) for j(S0: j) S0
"""


@pytest.mark.parametrize(("text", "skew"), [(None, 1), (NINE, 2)])
def test_gauss_seidel_rows_stay_behind_each_other(text: str | None, skew: int) -> None:
    """With a diagonal neighbour, one element behind is legal, but each row waits for the next."""
    scop = program("seidel") if text is None else parse_scop(text)
    steps = Steps(State.start(scop), Analysis())
    assert jammed(steps) == f"Skew(j, by=i, factor={skew})\nJam(i, 4)"
    preserves_flow(scop, steps.state)
    same_results(scop, steps.state)


def test_rows_that_wait_for_far_elements_stay_alone() -> None:
    steps = Steps(State.start(parse_scop(CHAIN)), Analysis())
    assert not jam_recurrences(steps) and steps.done == ()
    with pytest.raises(IllegalSchedule, match="jam"):
        script.replay(steps.state, "Jam(i, 4)", Analysis())


@pytest.mark.parametrize("name", ["matmul", "jacobi_2d", "dot"])
def test_sums_and_parallel_loops_are_left_alone(name: str) -> None:
    steps = start(name)
    assert not jam_recurrences(steps)


def test_one_loop_alone_has_no_neighbours() -> None:
    steps = start("jacobi_1d")
    assert find_loop(steps.tree, "i") and not jam_recurrences(steps)
