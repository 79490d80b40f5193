"""Orders and marks that are refused, and why."""

from __future__ import annotations

import pytest

from perfkit.analysis.dependences import Analysis, analyse
from perfkit.errors import IllegalSchedule
from perfkit.ir.tree import parse
from perfkit.schedule import legality
from perfkit.schedule.state import State
from tests.programs_ir import parse_scop, program


def test_names_the_dependence_and_a_pair() -> None:
    deps = analyse(program("seidel"))
    found = legality.violations(deps, parse("for s(S0: s) for j(S0: -j) for i(S0: i) S0"))
    assert found is not None
    assert found.dependence.describe().startswith("S0 -> S0 (")
    with pytest.raises(IllegalSchedule, match=r"S0\[.*\] -> S0\[.*\]: loop j runs them backwards"):
        raise found.error("Order")


def test_jacobi_loops() -> None:
    scop = program("jacobi_2d")
    deps = analyse(scop)
    assert not legality.is_parallel(deps, scop.tree, "s")
    assert all(legality.is_parallel(deps, scop.tree, x) for x in ("i", "j", "i_2", "j_2"))
    assert {d.array for d in legality.carried(deps, scop.tree, "s")} == {"A", "B"}
    assert legality.carried(deps, scop.tree, "i") == ()


def test_reductions_may_be_reordered_but_not_concurrent() -> None:
    scop = program("dot")
    deps = analyse(scop, "reassociate")
    backwards = parse("{ S0; for i(S1: -i) S1; S2 }")
    assert legality.is_legal(deps, backwards)
    assert not legality.is_legal(analyse(scop), backwards)
    assert not legality.is_parallel(deps, scop.tree, "i")
    assert legality.reduction_parallel(deps, scop.tree, "i")
    assert legality.carried_reductions(deps, scop.tree, "i") == ("S1",)
    parallel = parse("{ S0; for i(S1: i) parallel S1; S2 }")
    with pytest.raises(IllegalSchedule, match="carried by parallel loop i"):
        legality.check_marks(deps, parallel)
    legality.check_marks(deps, parallel, parallel_reductions=True)
    legality.check_marks(deps, parse("{ S0; for i(S1: i) vector(4) S1; S2 }"))
    assert not legality.is_legal(deps, parse("{ for i(S1: i) S1; S0; S2 }"))
    assert not legality.is_legal(deps, parse("{ S0; S2; for i(S1: i) S1 }"))


def test_copies_jammed_into_a_parallel_loop_share_its_reductions() -> None:
    scop = parse_scop(
        "params n\n"
        "array A[n] float64\n"
        "S[i, j]: 0 <= i < 4 and 0 <= j < n: A[j] = A[j] * 0.5\n"
        "tree\n"
        "for i(S: i) for j(S: j) S"
    )
    deps = analyse(scop, "reassociate")
    jammed = parse("for i(S: i) jam(2) for j(S: j + i) parallel S")
    legality.check_marks(deps, jammed, parallel_reductions=True)
    assert legality.carried_reductions(deps, jammed, "j") == ("S",)
    in_turn = parse("for i(S: i) for j(S: j + i) parallel S")
    assert legality.carried_reductions(deps, in_turn, "j") == ()
    apart = parse("for i(S: i) jam(2) for j(S: j) parallel S")
    assert legality.carried_reductions(deps, apart, "j") == ()


def test_vector_loops_may_hold_loops() -> None:
    tree = parse("for i(S0: i, S1: i) for j(S0: j, S1: j) vector(4) { S0; for k(S1: k) S1 }")
    legality.check_marks(analyse(program("matmul")), tree)
    inner = parse("for i(S0: i, S1: i) for j(S0: j, S1: j) { S0; for k(S1: k) vector(4) S1 }")
    with pytest.raises(IllegalSchedule, match="carried by vector loop k"):
        legality.check_marks(analyse(program("matmul")), inner)


def test_jam() -> None:
    deps = analyse(program("seidel"))
    # What s leaves at i + 1 is read at s + 1, i: unrolling s over i would read it too early.
    jammed = parse("for s(S0: s) jam(2) for i(S0: i) for j(S0: j) S0")
    with pytest.raises(IllegalSchedule, match="unrolled and jammed"):
        legality.check_marks(deps, jammed)
    skewed = parse("for s(S0: s) jam(2) for i(S0: i + s) for j(S0: j + s) S0")
    assert legality.is_legal(deps, skewed)
    legality.check_marks(deps, skewed)
    legality.check_marks(analyse(program("matmul")), parse(
        "for i(S0: i, S1: i) jam(4) for j(S0: j, S1: j) jam(4) { S0; for k(S1: k) S1 }"
    ))  # fmt: skip


def test_marks_are_proved_on_the_final_tree() -> None:
    state = State.start(program("producer_consumer"))
    tree = parse("for i(S0: i, S1: i + 2) parallel { S0; S1 }")
    with pytest.raises(IllegalSchedule, match=r"S0 -> S1 \(flow on B\)"):
        legality.check_final(Analysis(), state.with_tree(tree))
