"""Seeds: every candidate is legal, computes the same and replays from its text."""

from __future__ import annotations

import pytest

from perfkit.analysis.dependences import Analysis
from perfkit.ir.tree import loops, show
from perfkit.schedule import pluto, script
from perfkit.schedule.flow import preserves_flow
from perfkit.schedule.locality import Locality
from perfkit.schedule.pluto import Options
from perfkit.schedule.seeds import FUSIONS, Seed, candidates
from perfkit.schedule.state import State
from perfkit.schedule.unsink import unsink
from tests import programs_ir
from tests.schedule import storage_programs
from tests.schedule.storage_programs import same_results

SCOPS = {name: programs_ir.program(name) for name in programs_ir.PROGRAMS} | {
    name: storage_programs.program(name) for name in storage_programs.PROGRAMS
}


def seeds_of(name: str, fp: str = "strict") -> dict[str, Seed]:
    return {s.name: s for s in candidates(State.start(SCOPS[name], fp), 32)}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "floyd" else n for n in SCOPS]
)
def test_every_seed_is_correct_and_replays(name: str) -> None:
    scop = SCOPS[name]
    found = candidates(State.start(scop), 32)
    assert found[0].name == "original" and found[0].steps == ()
    assert len({s.name for s in found}) == len(found)
    for seed in found:
        preserves_flow(scop, seed.state)
        same_results(scop, seed.state)
        again = script.replay(State.start(scop), seed.script, Analysis())
        assert show(again.tree) == show(seed.state.tree), seed.name
        assert again.scop == seed.state.scop


@pytest.mark.parametrize("name", ["matmul", "dot", "syrk", "trisolv"])
def test_reordered_sums_keep_their_terms(name: str) -> None:
    for seed in seeds_of(name, "reassociate").values():
        preserves_flow(SCOPS[name], seed.state)


@pytest.mark.parametrize("name", [*SCOPS])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_scheduler_orders_are_legal(name: str, fusion: str) -> None:
    scop = SCOPS[name]
    deps = Analysis().dependences(scop)
    found = pluto.schedule(deps, Options(fusion))
    preserves_flow(scop, State.start(scop).with_tree(found.tree))
    known = {loop.name for loop in loops(found.tree)}
    assert {n for band in found.bands for n in band.loops} == known


def marks(seed: Seed) -> dict[str, str]:
    return {x.name: " ".join(map(str, x.marks)) for x in loops(seed.state.tree) if x.marks}


def test_parallel_marks_the_outermost_loop() -> None:
    assert marks(seeds_of("matmul")["parallel"]) == {"i": "parallel"}


def test_parallel_marks_inside_a_time_loop() -> None:
    assert marks(seeds_of("jacobi_2d")["parallel"]) == {
        "i": "parallel", "j": "vector(4)", "i_2": "parallel", "j_2": "vector(4)",
    }  # fmt: skip


def test_short_work_in_a_time_loop_stays_sequential() -> None:
    found = seeds_of("jacobi_1d")
    assert "parallel" not in " ".join(marks(found["parallel"]).values())
    assert marks(found["parallel-all"])["i"] == "parallel vector(4)"


def test_stencils_run_as_wavefronts() -> None:
    text = seeds_of("jacobi_2d")["pluto-smart"].script
    assert "Tile(s=32, i=32, j=64)\nWavefront(s_t, i_t)\nParallelize(i_t)" in text


def test_contractions_get_unit_stride_innermost() -> None:
    seed = seeds_of("matmul")["pluto-min"]
    assert marks(seed) == {
        "i_t": "parallel", "j": "vector(4)", "i_2_t": "parallel", "j_2": "vector(4)",
    }  # fmt: skip


def test_expansion_frees_symm() -> None:
    found = seeds_of("symm")
    assert "parallel" not in found
    assert marks(found["parallel-expanded"])["j"].startswith("parallel")


def test_splitting_frees_floyd_warshall() -> None:
    found = seeds_of("floyd")
    assert "parallel" not in found
    assert "i" in marks(found["pluto-smart-split-notile"])


def test_one_component_has_one_fusion() -> None:
    assert pluto.is_connected(Analysis().dependences(SCOPS["jacobi_1d"]))
    assert not pluto.is_connected(Analysis().dependences(SCOPS["matmul"]))
    assert not any("pluto-max" in name for name in seeds_of("jacobi_1d"))


def test_unsink_takes_initialisation_out_of_the_sum() -> None:
    deps = Analysis().dependences(SCOPS["matmul"])
    found = pluto.schedule(deps, Options("smart"))
    assert "S0: 0" in show(found.tree)
    assert show(unsink(deps, found.tree)) == show(SCOPS["matmul"].tree)


def test_a_small_budget_leaves_the_original() -> None:
    scop = SCOPS["jacobi_2d"]
    found = candidates(State.start(scop), 32, Analysis(max_operations=2000))
    assert [s.name for s in found] == ["original"]


def test_locality_prefers_neighbours() -> None:
    scop = SCOPS["matmul"]
    locality = Locality.of(scop, scop.tree)
    assert not locality.suits_lanes("k")
    tree = pluto.schedule(Analysis().dependences(scop), Options("min")).tree
    locality = Locality.of(scop, tree)
    assert locality.suits_lanes("j_2") and not locality.suits_lanes("i_2")
    assert locality.score("j_2") > locality.score("k") > locality.score("i_2")
