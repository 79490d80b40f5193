"""Value flow, and the proof that a transformed program keeps it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfkit.errors import IllegalSchedule
from perfkit.ir.isl import Polyhedra
from perfkit.ir.scop import Scop
from perfkit.ir.tree import parse
from perfkit.schedule import script
from perfkit.schedule.flow import OUT, Flows, pieces_of, preserves_flow
from perfkit.schedule.state import State
from perfkit.schedule.storage import Expand, Relayout, Split
from tests import programs_ir
from tests.programs_ir import parse_scop
from tests.schedule.storage_programs import PROGRAMS, program


def sources(scop: Scop, statement: str, load: int) -> set[str]:
    flows = Flows(Polyhedra(scop), scop.tree)
    return {m.get_tuple_name(OUT) for m in pieces_of(flows.sources[statement, load])}


def test_sources_of_loads() -> None:
    scop = program("symm")
    assert sources(scop, "S3", 1) == {"S0", "S2"}
    assert sources(scop, "S3", 0) == {"in__C"}
    assert sources(scop, "S1", 0) == {"S1", "S3"}


def test_only_the_last_write_is_a_source() -> None:
    assert sources(program("two_webs"), "S3", 0) == {"S2"}


def test_final_values() -> None:
    scop = program("symm")
    flows = Flows(Polyhedra(scop), scop.tree)
    assert {m.get_tuple_name(OUT) for m in pieces_of(flows.final["C"])} == {"S1", "S3"}
    assert {m.get_tuple_name(OUT) for m in pieces_of(flows.final["A"])} == {"in__A"}


@pytest.mark.parametrize("name", [*PROGRAMS])
@pytest.mark.parametrize("fp", ["strict", "reassociate"])
def test_a_program_keeps_its_own_flow(name: str, fp: str) -> None:
    scop = program(name)
    preserves_flow(scop, State.start(scop, fp))


@pytest.mark.parametrize("name", [*programs_ir.PROGRAMS])
def test_classic_programs_keep_their_flow(name: str) -> None:
    scop = programs_ir.program(name)
    preserves_flow(scop, State.start(scop))


def reordered(name: str, tree: str, fp: str = "strict") -> State:
    return replace(State.start(program(name), fp), tree=parse(tree))


SYRK_REVERSED = "for i(S0: i) for k(S0: -k) for j(S0: j) S0"


def test_a_reversed_sum_is_lost_unless_it_may_be_reordered() -> None:
    with pytest.raises(IllegalSchedule, match="S0 reading C"):
        preserves_flow(program("syrk"), reordered("syrk", SYRK_REVERSED))
    preserves_flow(program("syrk"), reordered("syrk", SYRK_REVERSED, "reassociate"))


def test_a_read_of_a_partial_sum_is_refused_even_when_sums_may_be_reordered() -> None:
    text = """
params n
context n >= 2
array a[n] float64
array b[n] float64
array s float64
S0[i]: 0 <= i < n: s = s + a[i]
S1[i]: 0 <= i < n: b[i] = s
tree
for i(S0: i, S1: i) { S0; S1 }
"""
    scop = programs_ir.parse_scop(text)
    backwards = parse("for i(S0: -i, S1: -i) { S0; S1 }")
    with pytest.raises(IllegalSchedule):
        preserves_flow(scop, replace(State.start(scop, "reassociate"), tree=backwards))
    late = parse("{ for i(S0: i) S0; for i_2(S1: i) S1 }")
    with pytest.raises(IllegalSchedule):
        preserves_flow(scop, replace(State.start(scop, "reassociate"), tree=late))


def test_a_changed_computation_is_refused() -> None:
    start = State.start(program("two_webs"))
    first, second, *rest = start.scop.statements
    swapped = replace(second, value=first.value)
    scop = replace(start.scop, statements=(first, swapped, *rest))
    with pytest.raises(IllegalSchedule, match="computes something else"):
        preserves_flow(start.scop, replace(start, scop=scop))


def test_missing_instances_are_refused() -> None:
    start = State.start(program("floyd"))
    state = Split("S0", "i < k").apply(start)
    scop = replace(state.scop, statements=state.scop.statements[:1], tree=start.tree)
    with pytest.raises(IllegalSchedule, match="not the instances"):
        preserves_flow(start.scop, replace(state, scop=scop, tree=start.tree))


def test_repeated_instances_are_refused() -> None:
    start = State.start(program("floyd"))
    state = Split("S0", "i < k").apply(start)
    first, second = state.scop.statements
    scop = replace(state.scop, statements=(first, replace(second, domain=first.domain)))
    with pytest.raises(IllegalSchedule, match="run twice"):
        preserves_flow(start.scop, replace(state, scop=scop))


def test_too_little_storage_is_refused() -> None:
    """A variable shared by iterations that then run interleaved."""
    tree = """for j(S0: j, S1: j, S2: j, S3: j) {
      for i(S0: i) S0; for i_2(S1: i, S2: i) for k(S1: k, S2: k) { S1; S2 }; for i_3(S3: i) S3 }"""
    start = State.start(program("symm"))
    with pytest.raises(IllegalSchedule):
        preserves_flow(start.scop, start.with_tree(parse(tree)))
    # With an element per iteration only the flow through C is lost.
    expanded = Expand("acc").apply(start)
    with pytest.raises(IllegalSchedule, match="C"):
        preserves_flow(start.scop, expanded.with_tree(parse(tree)))


def test_out_of_bounds_sizes_do_not_count() -> None:
    text = PROGRAMS["syrk"].replace("params n m", "params n m p").replace("A[n, m]", "A[p, m]")
    scop = programs_ir.parse_scop(text.replace("m >= 1", "m >= 1 and p >= 0"))
    state = Relayout("A", (1, 0)).apply(State.start(scop))
    preserves_flow(scop, state)


def test_a_reduction_may_not_read_a_snapshot_of_its_result() -> None:
    """Updates in any order all start from the first value; from the snapshot they never add up."""
    scop = programs_ir.parse_scop("""
params n
context n >= 1
array A[n, n] float64
array B[n, n] float64
S0[i, j]: 0 <= i < n and 0 <= j < n: A[i, 0] = A[i, 0] + B[i, j]
tree
for i(S0: i) for j(S0: j) S0
""")
    for fp in ("strict", "reassociate"):
        with pytest.raises(IllegalSchedule, match="S0"):
            Relayout("A", (0, 1), "A[i, 0]").apply(State.start(scop, fp))


def test_isl_names_wrong_sources_for_tiled_strided_loops_and_gets_a_second_look() -> None:
    start = State.start(parse_scop("""
params n
context n >= 1
array A[3*n + 8] float64
array t float64
S0[i0]: 0 <= i0 < n and i0 % 2 = 0: A[2] = A[2] + 0.25 * A[1]
S1[i0]: 0 <= i0 < n and i0 % 2 = 0: t = A[i0 + 1]
S2[i1]: 0 <= i1 < n and i1 % 3 = 1 and i1 >= n - 2: t = t + A[i1 + 1]
tree
{ for i0(S0: i0, S1: i0) { S0; S1 }; for i1(S2: i1) S2 }
"""))
    steps = """
Split(S2, "i1 >= 2")
Fuse(i0, i1, shift=1)
StripMine(i0, 2)
StripMine(i0_t, 4)
Interchange(i0, i0_t)
"""
    assert script.replay(start, steps).tree != start.tree
