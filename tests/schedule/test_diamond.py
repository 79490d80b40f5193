"""Diamond tiles: where they fit, what they leave parallel, and where they are refused."""

from __future__ import annotations

import pytest

from perfkit.analysis.dependences import Analysis
from perfkit.errors import IllegalSchedule, ScriptError, TransformError
from perfkit.ir.tree import find_loop, parse, show
from perfkit.schedule import pluto, script, seeds
from perfkit.schedule.diamond import Diamond
from perfkit.schedule.flow import preserves_flow
from perfkit.schedule.rows import jam_rows
from perfkit.schedule.shape import Sizes
from perfkit.schedule.state import State
from perfkit.schedule.steps import Steps
from perfkit.schedule.timetile import diamond_sizes
from perfkit.schedule.transforms import Parallelize
from tests.brute import Brute
from tests.programs_ir import parse_scop, program
from tests.schedule.storage_programs import same_results

SKEWED = "for s(S0: s, S1: s) for i(S0: i + 2*s, S1: i + 2*s + 1) { S0; S1 }"
FDTD = """
params t n
context t >= 1 and n >= 1
array E[n] float64
array H[n] float64
S0[s, i]: 0 <= s < t and 1 <= i < n: E[i] = E[i] - H[i] + H[i - 1]
S1[s, i]: 0 <= s < t and 0 <= i < n - 1: H[i] = H[i] - E[i + 1] + E[i]
tree
for s(S0: s, S1: s) { for i(S0: i) S0; for i_2(S1: i) S1 }
"""
ONE_SIDED = """
params t n
context t >= 1 and n >= 1
array A[t, n] float64
S0[s, i]: 1 <= s < t and 0 <= i < n - 1: A[s, i] = A[s - 1, i + 1]
tree
for s(S0: s) for i(S0: i + s) S0
"""


def skewed(name: str) -> State:
    return script.replay(State.start(program(name)), f'Order("""{SKEWED}""")')


def legal(state: State) -> None:
    sizes = dict.fromkeys(state.scop.parameters, 6)
    assert Brute(state.scop, sizes, state.fp).violation(state.tree) is None


def test_tiles_are_bounded_by_lines_in_both_directions() -> None:
    state = Diamond("s", "i", 8).apply(skewed("jacobi_1d"))
    wanted = """
    for s_t(S0: floor((i + 2*s)/8) + floor((-i + 2*s)/8),
            S1: floor((i + 2*s + 1)/8) + floor((-i + 2*s + 1)/8))
      for i_t(S0: floor((i + 2*s)/8), S1: floor((i + 2*s + 1)/8))
        for s(S0: s, S1: s) for i(S0: i + 2*s, S1: i + 2*s + 1) { S0; S1 }"""
    assert show(state.tree) == show(parse(wanted))
    legal(state)


@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_the_tiles_of_a_row_are_independent(size: int) -> None:
    state = Diamond("s", "i", size).apply(skewed("jacobi_1d"))
    state = Parallelize("i_t").apply(state)
    legal(state)
    same_results(state.original, state)


def test_plain_tiles_of_a_skewed_loop_are_not() -> None:
    text = "Tile(s=8, i=8)\nParallelize(i_t)"
    with pytest.raises(IllegalSchedule):
        script.replay(skewed("jacobi_1d"), text)


def test_statements_get_the_delays_that_their_dependences_need() -> None:
    """The skewing delays S1 by an iteration, the other direction must not."""
    start = Steps(State.start(parse_scop(FDTD)), Analysis())
    order = 'Order("""for s(S0: s, S1: s) for i(S0: i + s, S1: i + s + 1) { S0; S1 }""")'
    text = f"{order}\nDiamond(s, i, 4)\nParallelize(i_t)"
    state = script.replay(start.state, text)
    legal(state)
    same_results(state.original, state)
    assert "floor((-i + s)/4)" in str(find_loop(state.tree, "s_t").expression("S1"))


def test_dependences_in_one_direction_allow_the_least_steep_lines() -> None:
    state = Diamond("s", "i", 4).apply(State.start(parse_scop(ONE_SIDED)))
    legal(Parallelize("i_t").apply(state))


def test_sweeps_in_place_are_refused() -> None:
    state = script.replay(State.start(program("seidel")), "Skew(i, by=s)\nSkew(j, by=s)")
    with pytest.raises(TransformError, match="sweep in place"):
        Diamond("s", "i", 8).apply(state)


@pytest.mark.parametrize(
    ("name", "step", "why"),
    [
        ("jacobi_2d", Diamond("s", "i", 8), "only loop directly inside"),
        ("matmul", Diamond("i", "j", 8), "not skewed"),
        ("matmul", Diamond("i", "j", 1), "above 1"),
        ("matmul", Diamond("i", "k", 8), "only loop directly inside"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, step: Diamond, why: str) -> None:
    with pytest.raises(TransformError, match=why):
        step.apply(State.start(program(name)))


def test_unknown_loops_are_named() -> None:
    with pytest.raises(ScriptError, match="no loop is named 'q'"):
        Diamond("q", "i", 8).apply(skewed("jacobi_1d"))


def test_the_script_reads_back() -> None:
    (step,) = script.parse("Diamond(s, i, 16)")
    assert str(step) == "Diamond(s, i, 16)" and step == Diamond("s", "i", 16)


@pytest.mark.parametrize("name", ["jacobi_1d", "jacobi_2d"])
def test_the_seed_runs_diamonds_on_threads(name: str) -> None:
    steps = Steps(State.start(program(name)), Analysis())
    found = pluto.schedule(steps.dependences)
    made = seeds.diamonds(steps, found, 32, Sizes(cache=1 << 10))
    assert made is not None
    text = script.show(made.done)
    assert "Diamond(s, i, " in text and "Parallelize(i_t)" in text
    preserves_flow(steps.state.scop, made.state)
    same_results(steps.state.scop, made.state)


@pytest.mark.parametrize("name", ["matmul", "seidel"])
def test_other_programs_have_no_such_seed(name: str) -> None:
    steps = Steps(State.start(program(name)), Analysis())
    assert seeds.diamonds(steps, pluto.schedule(steps.dependences), 32, Sizes()) is None


@pytest.mark.parametrize("row", [None, 100, 1000])
def test_a_diamond_is_on_average_no_larger_than_the_cache(row: int | None) -> None:
    steps = Steps(State.start(program("jacobi_2d")), Analysis())
    found = pluto.schedule(steps.dependences)
    cache = 1 << 18
    ((loop, width),) = diamond_sizes(steps.state.scop, found.tree, found.bands[0], cache, row)
    assert loop == found.bands[0].loops[1]
    assert cache // 4 < width * (row or 1024) * 16 // 2 <= cache


# -- rows side by side -----------------------------------------------------------------------

SHARED = (
    "for s(S0: s, S1: s) { for i(S0: i) for j(S0: j) vector(4) S0; for k(S1: i) for l(S1: j) S1 }"
)
COPY = """
params n
context n >= 1
array A[n, n] float64
array B[n, n] float64
S0[i, j]: 0 <= i < n and 0 <= j < n - 1: B[i, j] = A[i, j] + A[i, j + 1]
tree
for i(S0: i) for j(S0: j) vector(4) S0
"""


def test_rows_that_share_loads_are_jammed() -> None:
    steps = Steps(State.start(program("jacobi_2d")), Analysis())
    steps.take(script.parse(f'Order("""{SHARED}""")')[0])
    assert jam_rows(steps) and str(steps.done[-1]) == "Jam(i, 4)"
    same_results(steps.state.original, steps.state)


def test_rows_that_share_nothing_are_not() -> None:
    steps = Steps(State.start(parse_scop(COPY)), Analysis())
    assert not jam_rows(steps)
