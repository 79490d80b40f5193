"""Reductions in two phases: what is summed apart, what is refused, and what the flow check sees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfkit.analysis.dependences import Analysis
from perfkit.errors import IllegalSchedule, TransformError
from perfkit.ir.affine import Affine, Constraint
from perfkit.ir.expr import Access, Binary, Const, Load
from perfkit.ir.tree import Sequence, show
from perfkit.schedule import legality, script
from perfkit.schedule.flow import preserves_flow
from perfkit.schedule.state import State
from tests.programs_ir import parse_scop
from tests.schedule.storage_programs import results

COLUMNS = """
params n m
context n >= 1 and m >= 1
array A[n, m] float64
array s[m] float64
S0[i, j]: 0 <= i < n and 0 <= j < m: s[j] = s[j] + A[i, j]
tree
for i(S0: i) for j(S0: j) S0
"""
TRIANGLE = COLUMNS.replace("0 <= j < m", "0 <= j <= i and j < m")
SCALAR = COLUMNS.replace("array s[m]", "array s").replace("s[j]", "s")
NORMS = """
params n t
context n >= 1 and t >= 1
array x[n] float64
array r[t] float64
array s float64
S0[k]: 0 <= k < t: s = 0.0
S1[k, i]: 0 <= k < t and 0 <= i < n: s = s + x[i] * x[i]
S2[k]: 0 <= k < t: r[k] = s
S3[k, i]: 0 <= k < t and 0 <= i < n: x[i] = x[i] * 0.5 + r[k]
tree
for k(S0: k, S1: k, S2: k, S3: k) { S0; for i(S1: i) S1; S2; for i_2(S3: i) S3 }
"""


def factored(text: str, steps: str, fp: str = "reassociate") -> State:
    """Replayed, proved and compared with the original order."""
    state = script.replay(State.start(parse_scop(text), fp), steps)
    expected = results(State.start(state.original))
    for name, got in results(state).items():
        np.testing.assert_allclose(got, expected[name], rtol=1e-12, err_msg=name)
    return state


def parallel(state: State, loop: str) -> bool:
    deps = Analysis().dependences(state.scop, state.fp)
    return legality.is_parallel(deps, state.tree, loop)


def test_chunks_sum_in_parallel_and_are_added_after_them() -> None:
    state = factored(COLUMNS, "Rfactor(S0, i, 4)")
    assert parallel(state, "i_c") and parallel(state, "j") and not parallel(state, "i")
    (part,) = (a for a in state.scop.arrays if a.name == "s_part")
    assert [str(e) for e in part.shape] == ["floor((n - 1)/4) + 1", "m"] and part.local
    inner, last = show(state.tree).split("};")
    assert "S0_start" in inner and "S0_combine" in last


@pytest.mark.parametrize(
    ("text", "step"),
    [
        (TRIANGLE, "Rfactor(S0, i, 2)"),
        (SCALAR, "Rfactor(S0, i, 2)"),
        (SCALAR, "Rfactor(S0, j, 3)"),
        (SCALAR.replace("+ A", "* A"), "Rfactor(S0, i, 3)"),
        (COLUMNS.replace("s[j] + A[i, j]", "min(s[j], A[i, j])"), "Rfactor(S0, i, 4)"),
        (COLUMNS.replace("s[j] + A[i, j]", "s[j] - A[i, j]"), "Rfactor(S0, i, 4)"),
        (NORMS, "Rfactor(S1, i, 2)"),
        (NORMS, "Expand(s); Rfactor(S1, i, 2)"),
        (COLUMNS, "Interchange(i, j); Rfactor(S0, i, 4)"),
    ],
)
def test_it_keeps_the_values(text: str, step: str) -> None:
    assert parallel(factored(text, step), "j_c" if "(S0, j" in step else "i_c")


def test_sums_of_floats_keep_their_order_under_strict() -> None:
    with pytest.raises(TransformError, match="may be reordered under fp=\"strict\""):
        factored(COLUMNS, "Rfactor(S0, i, 4)", "strict")
    state = State.start(parse_scop(COLUMNS.replace("float64", "int64")))
    assert parallel(script.replay(state, "Rfactor(S0, i, 4)"), "i_c")


SHIFTED = COLUMNS.replace("s[j] + A[i, j]", "s[j] + A[i, j] * s[0]")
FUSED = NORMS.replace(
    "{ S0; for i(S1: i) S1; S2; for i_2(S3: i) S3 }",
    "{ S0; S2; for i(S1: i, S3: i) { S1; S3 } }",
)


@pytest.mark.parametrize(
    ("text", "step", "why"),
    [
        (COLUMNS, "Rfactor(S9, i, 4)", "no statement is named 'S9'"),
        (COLUMNS, "Rfactor(S0, i, 1)", "two or more"),
        (COLUMNS, "Rfactor(S0, q, 4)", "not alone in a loop named q"),
        (COLUMNS, "Rfactor(S0, j, 4)", "nothing is summed over it"),
        (COLUMNS.replace("+ A", "/ A"), "Rfactor(S0, i, 4)", "no sum, product"),
        (COLUMNS, "Skew(i, j, 1); Rfactor(S0, i, 4)", "no iterator of S0"),
        (FUSED, "Rfactor(S1, i, 4)", "not alone in a loop named i"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, step: str, why: str) -> None:
    with pytest.raises(TransformError, match=why):
        script.replay(State.start(parse_scop(text), "reassociate"), step)


def test_sums_that_others_read_on_the_way_are_refused() -> None:
    with pytest.raises((IllegalSchedule, TransformError)):
        script.replay(State.start(parse_scop(SHIFTED), "reassociate"), "Rfactor(S0, i, 4)")


# -- the check itself ------------------------------------------------------------------------


def changed(state: State, name: str, **fields: Any) -> State:
    statements = tuple(
        replace(s, **fields) if s.name == name else s for s in state.scop.statements
    )
    return replace(state, scop=replace(state.scop, statements=statements))


@pytest.fixture(scope="module")
def columns() -> State:
    return factored(COLUMNS, "Rfactor(S0, i, 4)")


def test_the_flow_check_wants_a_neutral_start(columns: State) -> None:
    with pytest.raises(IllegalSchedule, match="no neutral element"):
        preserves_flow(columns.original, changed(columns, "S0_start", value=Const("float64", 1.0)))


def test_the_flow_check_wants_the_operation_of_the_sum(columns: State) -> None:
    combine = columns.scop.statement("S0_combine").value
    assert isinstance(combine, Binary)
    with pytest.raises(IllegalSchedule, match="S0"):
        preserves_flow(
            columns.original, changed(columns, "S0_combine", value=replace(combine, op="mul"))
        )


def test_the_flow_check_wants_every_chunk_once(columns: State) -> None:
    combine = columns.scop.statement("S0_combine")
    fewer = combine.domain.where(Constraint(Affine.variable("i_c") - 1))
    with pytest.raises(IllegalSchedule, match="lost"):
        preserves_flow(columns.original, changed(columns, "S0_combine", domain=fewer))
    first = replace(combine.value, right=Load("float64", Access(
        "s_part", (Affine.constant(0), Affine.variable("j")))))  # fmt: skip
    with pytest.raises(IllegalSchedule, match=r"twice|lost"):
        preserves_flow(columns.original, changed(columns, "S0_combine", value=first))


def test_the_flow_check_wants_the_sums_before_they_are_added(columns: State) -> None:
    assert isinstance(columns.tree, Sequence)
    backwards = Sequence(columns.tree.children[::-1])
    with pytest.raises(IllegalSchedule):
        preserves_flow(columns.original, columns.with_tree(backwards))
