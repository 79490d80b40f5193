"""GPU mapping transforms: what they mark, what they refuse, and the default mapping."""

from __future__ import annotations

import pytest

from perfkit.errors import IllegalSchedule, ScriptError, TransformError
from perfkit.ir.tree import loops, parse, show
from perfkit.schedule import script
from perfkit.schedule.gpu_mapping import Blocks, map_to_gpu
from perfkit.schedule.state import State
from tests.programs_ir import parse_scop

MATMUL = """
params n m p
context n >= 1 and m >= 1 and p >= 1
array C[n, m] float64
array A[n, p] float64
array B[p, m] float64
S0[i, j, k]: 0 <= i < n and 0 <= j < m and 0 <= k < p: C[i, j] = C[i, j] + A[i, k] * B[k, j]
tree
for i(S0: i)
  for j(S0: j)
    for k(S0: k)
      S0
"""
PREFIX = """
params n
context n >= 1
array x[n] float64
S0[i]: 1 <= i < n: x[i] = x[i] + x[i - 1]
tree
for i(S0: i)
  S0
"""


def mapped(text: str, steps: str, fp: str = "strict") -> State:
    return script.replay(State.start(parse_scop(text), fp), steps)


def marks(state: State) -> dict[str, str]:
    return {loop.name: " ".join(map(str, loop.marks)) for loop in loops(state.tree)}


def test_a_script_maps_a_nest() -> None:
    steps = "MapGrid(i, j); MapBlock(i, 64); MapBlock(j, 32); Stages(k, 3); Warps(i, 8)"
    state = mapped(MATMUL, steps)
    assert marks(state) == {"i": "grid block(64) warps(8)", "j": "grid block(32)", "k": "stages(3)"}
    assert parse(show(state.tree)) == state.tree
    assert script.parse(script.show(script.parse(steps))) == script.parse(steps)


def test_lanes_may_reduce_where_sums_may_be_reordered() -> None:
    assert marks(mapped(MATMUL, "MapBlock(k, 16)", "reassociate"))["k"] == "block(16)"
    with pytest.raises(IllegalSchedule, match="carried by block loop k"):
        mapped(MATMUL, "MapBlock(k, 16)")


@pytest.mark.parametrize(
    ("text", "steps", "fp", "why"),
    [
        (PREFIX, "MapGrid(i)", "strict", "carried by grid loop i"),
        (PREFIX, "MapBlock(i, 32)", "strict", "carried by block loop i"),
        (MATMUL, "Interchange(j, k); Interchange(i, k); MapGrid(k)", "reassociate", "grid loop k"),
    ],
)
def test_what_a_mark_would_break_is_named(text: str, steps: str, fp: str, why: str) -> None:
    with pytest.raises(IllegalSchedule, match=why):
        mapped(text, steps, fp)


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ("MapGrid(i, k)", "not a nest"),
        ("MapGrid()", "one to three"),
        ("MapBlock(j, 48)", "power of two"),
        ("Stages(i, 99)", "stages must be"),
        ("Warps(i, 3)", "warps must be"),
        ("Warps(i, 4)", "not a loop of a grid"),
        ("MapGrid(i); Stages(i, 2)", "inside programs"),
    ],
)
def test_marks_that_fit_no_loop_are_refused(steps: str, why: str) -> None:
    with pytest.raises(TransformError, match=why):
        mapped(MATMUL, steps)


def test_unknown_loops_are_named() -> None:
    with pytest.raises(ScriptError, match="no loop is named"):
        mapped(MATMUL, "MapGrid(q)")


def test_the_default_mapping_finds_products_and_replays() -> None:
    start = State.start(parse_scop(MATMUL), "reassociate")
    found = map_to_gpu(start, blocks=Blocks(rows=32, columns=64, depth=32))
    assert marks(found.state) == {"i": "grid block(32)", "j": "grid block(64)", "k": "block(16)"}
    assert script.replay(start, found.script).tree == found.state.tree


@pytest.mark.parametrize("fp", ["strict", "reassociate"])
def test_a_recurrence_is_mapped_to_one_program_whose_lanes_may_scan(fp: str) -> None:
    found = map_to_gpu(State.start(parse_scop(PREFIX), fp))
    assert not any(loop.mark("grid") for loop in loops(found.state.tree))
    assert any(loop.mark("block") for loop in loops(found.state.tree)) == (fp == "reassociate")


STENCIL = """
params n t
context n >= 3 and t >= 1
array A[n, n] float64
S0[s, i, j]: 0 <= s < t and 1 <= i < n - 1 and 1 <= j < n - 1: \
    A[i, j] = A[i - 1, j] + A[i, j - 1] + A[i, j] + A[i, j + 1] + A[i + 1, j]
tree
for s(S0: s) for i(S0: i) for j(S0: j) S0
"""


def test_bands_without_a_parallel_loop_run_as_waves() -> None:
    start = State.start(parse_scop(STENCIL.replace("\\\n", "")))
    found = map_to_gpu(start, blocks=Blocks(rows=8, columns=8))
    assert "waves" in found.name
    outer, *inner = loops(found.state.tree)
    assert not outer.marks and all(loop.mark("grid") for loop in inner)
    assert script.replay(start, found.script).tree == found.state.tree
