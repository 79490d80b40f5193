"""Expansion, privatisation, splitting and layouts: what they free, and what they refuse."""

from __future__ import annotations

import pytest

from perfkit.analysis.dependences import Analysis
from perfkit.errors import IllegalSchedule, ScriptError, TransformError
from perfkit.ir.tree import loops
from perfkit.schedule import legality, script
from perfkit.schedule.autosplit import auto_split
from perfkit.schedule.flow import preserves_flow
from perfkit.schedule.state import State
from perfkit.schedule.storage import Expand, Privatize, Relayout, Split, auto_expand
from tests.programs_ir import parse_scop
from tests.schedule.storage_programs import PROGRAMS, program, same_results


def accesses(state: State) -> dict[str, str]:
    return {s.name: f"{s.write} = f({', '.join(map(str, s.reads))})" for s in state.scop.statements}


def shapes(state: State) -> dict[str, str]:
    return {a.name: ", ".join(map(str, a.shape)) for a in state.scop.arrays}


def parallel_loops(state: State) -> set[str]:
    deps = Analysis().dependences(state.scop)
    return {x.name for x in loops(state.tree) if legality.is_parallel(deps, state.tree, x.name)}


def checked(original: State, state: State) -> State:
    preserves_flow(original.scop, state)
    same_results(original.scop, state)
    return state


# -- Expand ----------------------------------------------------------------------------------


def test_expand_scalar_over_the_loops_that_reuse_it() -> None:
    start = State.start(program("symm"))
    assert parallel_loops(start) == set()
    state = checked(start, Expand("acc").apply(start))
    assert shapes(state)["acc"] == "m, n"
    assert accesses(state)["S2"] == "acc[i, j] = f(acc[i, j], B[k, j], A[i, k])"
    assert "j" in parallel_loops(state)


def test_expand_keeps_a_recurrence_in_its_loop() -> None:
    start = State.start(program("filter"))
    state = start
    for name in ("xm", "ym"):
        state = Expand(name).apply(state)
    checked(start, state)
    assert shapes(state)["ym"] == "w"
    assert accesses(state)["S4"] == "ym[i] = f(Y[i, j])"
    assert parallel_loops(state) == {"i"}


def test_expand_separates_webs() -> None:
    start = State.start(program("two_webs"))
    state = checked(start, Expand("t").apply(start))
    assert shapes(state) == {"A": "n", "B": "n", "t": "n", "t_2": "n"}
    assert accesses(state)["S3"] == "A[i] = f(t_2[i], t_2[i])"
    assert parallel_loops(state) == {"i", "i_2"}


def test_expand_over_named_loops_follows_a_constant_distance() -> None:
    text = """
params n
context n >= 2
array A[n] float64
array t[n] float64 local
S0[i]: 0 <= i < n: t[0] = A[i] * 0.5
S1[i]: 1 <= i < n: A[i] = A[i] + t[1]
S2[i]: 0 <= i < n: t[1] = t[0]
tree
for i(S0: i, S1: i, S2: i) { S0; S1; S2 }
"""
    start = State.start(parse_scop(text))
    state = checked(start, Expand("t", ("i",)).apply(start))
    assert accesses(state)["S1"] == "A[i] = f(A[i], t_2[i - 1, 1])"


def test_expand_copies_final_values_back() -> None:
    start = State.start(program("live_temporary"))
    state = checked(start, Expand("acc").apply(start))
    assert shapes(state)["acc_2"] == "n, m"
    assert accesses(state)["out_acc_2"] == "acc[x0] = f(acc_2[n - 1, x0])"
    assert "r" in parallel_loops(state)


@pytest.mark.parametrize(
    ("name", "step", "why"),
    [
        ("symm", Expand("A"), "only read"),
        ("symm", Expand("nothing"), "no array"),
        ("symm", Expand("C"), "never wrote"),
        ("symm", Expand("acc", ("k",)), "not around all accesses"),
        ("filter", Privatize("ym", "j"), "not around all accesses"),
        ("lagged", Privatize("t", "i"), "not around all accesses"),
        ("lagged", Expand("t"), "no loop reuses"),
    ],
)
def test_expand_refuses(name: str, step: Expand | Privatize, why: str) -> None:
    with pytest.raises(TransformError, match=why):
        step.apply(State.start(program(name)))


def test_privatize_makes_one_loop_parallel() -> None:
    start = State.start(program("symm"))
    state = checked(start, Privatize("acc", "j").apply(start))
    assert shapes(state)["acc"] == "n"
    assert parallel_loops(state) == {"j"}


def test_auto_expand_minds_the_memory() -> None:
    assert [str(s) for s in auto_expand(State.start(program("symm")))] == ["Expand(acc)"]
    assert [str(s) for s in auto_expand(State.start(program("two_webs")))] == ["Expand(t)"]
    assert auto_expand(State.start(program("floyd"))) == ()
    text = PROGRAMS["symm"].replace("C[m, n]", "C[m]").replace("C[k, j]", "C[k]")
    text = text.replace("C[i, j]", "C[i]").replace("A[m, m]", "A[m]").replace("A[i, k]", "A[k]")
    text = text.replace("B[m, n]", "B[n]").replace("B[i, j]", "B[j]").replace("B[k, j]", "B[j]")
    small = parse_scop(text)
    assert [str(s) for s in auto_expand(State.start(small))] == ["Expand(acc, (j,))"]


# -- Split -----------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", ["i < k", "i <= k", "i > k", "i >= k", "i = k", "j == k"])
def test_split_partitions_the_instances(condition: str) -> None:
    start = State.start(program("floyd"))
    state = checked(start, Split("S0", condition).apply(start))
    assert [s.name for s in state.scop.statements] == ["S0", "S0_2"]
    assert state.scop.statement("S0_2").origin == "S0"


def test_split_parts_of_parts_keep_their_origin() -> None:
    state = State.start(program("floyd"))
    state = Split("S0_2", "i = k").apply(Split("S0", "i < k").apply(state))
    assert {s.name: s.origin for s in state.scop.statements} == {
        "S0": "", "S0_2": "S0", "S0_3": "S0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("step", "error", "why"),
    [
        (Split("S0", "i < 0"), TransformError, "does not separate"),
        (Split("S0", "i >= 0"), TransformError, "does not separate"),
        (Split("S1", "i < k"), TransformError, "no statement"),
        (Split("S0", "x < k"), TransformError, "neither an iterator"),
        (Split("S0", "i + k"), ScriptError, "one comparison"),
    ],
)
def test_split_refuses(step: Split, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        step.apply(State.start(program("floyd")))


def test_auto_split_frees_floyd_warshall_only() -> None:
    start = State.start(program("floyd"))
    state = start
    for step in auto_split(start, Analysis()):
        state = step.apply(state)
    assert len(state.scop.statements) == 9
    checked(start, state)
    assert auto_split(State.start(program("syrk")), Analysis()) == ()


# -- Relayout --------------------------------------------------------------------------------


def test_relayout_copies_and_redirects_one_access() -> None:
    start = State.start(program("syrk"))
    state = checked(start, Relayout("A", (1, 0), "A[j, k]").apply(start))
    assert accesses(state) == {
        "copy_A": "A_2[x1, x0] = f(A[x0, x1])",
        "S0": "C[i, j] = f(C[i, j], A[i, k], A_2[k, j])",
    }
    assert shapes(state)["A_2"] == "m, n"


def test_relayout_of_a_local_needs_no_copy() -> None:
    start = State.start(program("symm"))
    state = Expand("acc").apply(start)
    state = checked(start, Relayout("acc", (1, 0)).apply(state))
    assert shapes(state)["acc"] == "n, m"
    assert len(state.scop.statements) == 4


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (Relayout("C", (1, 0)), "is written"),
        (Relayout("A", (0, 1)), "stay as it is"),
        (Relayout("A", (0, 0)), "not a permutation"),
        (Relayout("A", (1, 0), "A[k, k]"), "is read"),
        (Relayout("Z", (1, 0)), "no array"),
    ],
)
def test_relayout_refuses(step: Relayout, why: str) -> None:
    with pytest.raises(TransformError, match=why):
        step.apply(State.start(program("syrk")))


# -- text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [
        Expand("acc"),
        Expand("acc", ("j",)),
        Expand("acc", ("i", "j")),
        Privatize("acc", "j"),
        Split("S2", "k <= j"),
        Relayout("B", (1, 0)),
        Relayout("B", (1, 0), "B[k, j]"),
    ],
)
def test_steps_read_back(step: object) -> None:
    assert script.parse(str(step)) == (step,)


def test_a_lost_order_is_refused_at_the_end() -> None:
    start = State.start(program("two_webs"))
    text = """
Expand(t)
Order(\"\"\"{ for i_2(S2: i, S3: i) { S2; S3 }; for i(S0: i, S1: i) { S0; S1 } }\"\"\")
"""
    with pytest.raises(IllegalSchedule):
        script.replay(start, text)
