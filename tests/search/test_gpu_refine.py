"""Mappings made from ranked ones: each kernel's own blocks, sums in two phases."""

from __future__ import annotations

import pytest

from perfkit.analysis.dependences import Analysis
from perfkit.cost.device import Gpu
from perfkit.ir.tree import loops
from perfkit.schedule import script
from perfkit.schedule.gpu_mapping import Blocks, plans
from perfkit.schedule.state import State
from perfkit.search.gpu import choose_gpu
from perfkit.search.gpu_refine import Ranking
from tests.codegen.harness import signature
from tests.programs_ir import parse_scop

DOT = """
params n
context n >= 1
array x[n] float64
array y[n] float64
array s float64
S0[i]: 0 <= i < n: s = s + x[i] * y[i]
tree
for i(S0: i) S0
"""
COLUMNS = """
params n m
context n >= 1 and m >= 1
array A[n, m] float64
array s[m] float64
S0[j]: 0 <= j < m: s[j] = 0.0
S1[i, j]: 0 <= i < n and 0 <= j < m: s[j] = s[j] + A[i, j]
tree
{ for j(S0: j) S0; for i(S1: i) for j_2(S1: j) S1 }
"""
TWO = """
params n m
context n >= 1 and m >= 1
array A[n, n] float64
array B[n, n] float64
array x[m] float64
array y[m] float64
S0[i, j, k]: 0 <= i < n and 0 <= j < n and 0 <= k < n: A[i, j] = A[i, j] + B[i, k] * B[k, j]
S1[i]: 0 <= i < m: y[i] = x[i] * 2.0
tree
{ for i(S0: i) for j(S0: j) for k(S0: k) S0; for i_2(S1: i) S1 }
"""


def steps_of(text: str, sizes: dict[str, int], fp: str = "reassociate") -> str:
    state = State.start(parse_scop(text), fp)
    choice = choose_gpu(state, signature(state.scop, "kernel"), Analysis(), "auto", sizes)
    again = script.replay(state, choice.seed.script)
    assert again.tree == choice.seed.state.tree  # what is chosen can be replayed
    return choice.seed.script


@pytest.mark.parametrize(
    ("text", "sizes"),
    [(DOT, {"n": 10_000_000}), (COLUMNS, {"n": 400_000, "m": 32})],
)
def test_long_sums_into_few_elements_run_in_two_phases(text: str, sizes: dict[str, int]) -> None:
    assert "Rfactor(" in steps_of(text, sizes)
    assert "MapGrid(i_c" in steps_of(text, sizes)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [(DOT, {"n": 1000}), (COLUMNS, {"n": 100, "m": 100_000})],
)
def test_sums_that_keep_the_gpu_busy_do_not(text: str, sizes: dict[str, int]) -> None:
    assert "Rfactor(" not in steps_of(text, sizes)


def test_strict_sums_stay_in_one_phase() -> None:
    assert "Rfactor(" not in steps_of(DOT, {"n": 10_000_000}, "strict")


def test_each_kernel_has_blocks_of_its_own() -> None:
    state = State.start(parse_scop(TWO), "reassociate")
    analysis = Analysis()
    ranking = Ranking(analysis, {"n": 2048, "m": 50_000_000}, Gpu())
    shapes = (Blocks(line=2), Blocks(256, rows=2, columns=2, depth=2))  # each bad for one of them
    found = plans(state, analysis, shapes)
    best = ranking.rank(found)[0]
    assert best.plan.name.endswith(":mixed")
    assert best.seconds < min(ranking.guess(p).seconds for p in found)
    blocks = {x.name: m.factor for x in loops(best.plan.tree) if (m := x.mark("block"))}
    assert blocks["i_2"] == 256 and (blocks["i"], blocks["j"]) == (64, 64)
