"""What counts as a scan, and when its loop may run in lanes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from perfkit.analysis.scans import scan_of
from perfkit.errors import IllegalSchedule
from perfkit.ir.tree import Loop, Mark, enclosing
from perfkit.schedule import script
from perfkit.schedule.state import State
from tests.programs_ir import parse_scop


def text_of(assignment: str, dtype: str = "float64", loop: str = "j") -> str:
    return (
        f"params n\ncontext n >= 1\narray A[n, n] {dtype}\narray B[n, n] {dtype}\n"
        f"S0[i, j]: 1 <= i < n - 1 and 1 <= j < n - 1: {assignment}\n"
        f"tree\nfor i(S0: i) for {loop}(S0: {loop}) S0\n"
    )


def found(assignment: str, dtype: str = "float64", fp: str = "reassociate") -> str | None:
    scop = parse_scop(text_of(assignment, dtype))
    (statement,) = scop.statements
    scan = scan_of(scop, statement, enclosing(scop.tree, "S0"), "j", fp)
    return scan.op if scan else None


@pytest.mark.parametrize(
    ("assignment", "op"),
    [
        ("A[i, j] = A[i, j - 1] + B[i, j]", "add"),
        ("A[i, j] = A[i, j] + A[i, j - 1]", "add"),
        ("A[i, j] = A[i, j - 1] - B[i, j]", "add"),
        ("A[i, j] = A[i, j - 1] * B[i, j]", "mul"),
        ("A[i, j] = max(B[i, j], A[i, j - 1])", "max"),
        ("A[i, j] = B[i, j] - A[i, j - 1]", None),
        ("A[i, j] = A[i, j - 2] + B[i, j]", None),
        ("A[i, j] = A[i, j + 1] + B[i, j]", None),
        ("A[i, j] = A[i, j - 1] * 2.0 + B[i, j]", None),
        ("A[i, j] = A[i, j - 1] + A[i - 1, j]", None),
        ("A[i, j] = A[i, j - 1] + A[i, j - 1]", None),
        ("A[i, 0] = A[i, 0] + B[i, j]", None),  # a reduction
    ],
)
def test_one_step_recurrences_of_associative_operations(assignment: str, op: str | None) -> None:
    assert found(assignment) == op


def test_floats_are_scanned_only_where_the_user_allowed_it() -> None:
    assert found("A[i, j] = A[i, j - 1] + B[i, j]", fp="strict") is None
    assert found("A[i, j] = A[i, j - 1] + B[i, j]", "int32", "strict") == "add"


@pytest.mark.parametrize(
    ("assignment", "steps", "legal"),
    [
        ("A[i, j] = A[i, j - 1] + B[i, j]", "MapBlock(j, 32)", True),
        ("A[i, j] = A[i, j - 1] + B[i, j]", "MapGrid(i); MapBlock(i, 4); MapBlock(j, 32)", True),
        ("A[i, j] = A[i, j - 1] + B[i, j]", "MapGrid(j)", False),
        ("A[i, j] = A[i, j - 1] + B[i, j]", "Reverse(i); MapBlock(j, 32)", True),
        ("A[i, j] = A[i - 1, j] + B[i, j]", "MapBlock(i, 32)", True),
        ("A[i, j] = A[i - 1, j] + B[i, j]", "Skew(j, by=i, factor=1); MapBlock(i, 32)", False),
        ("A[i, j] = A[i, j - 1] * 2.0 + B[i, j]", "MapBlock(j, 32)", False),
        ("A[i, j] = A[i, j - 2] + B[i, j]", "MapBlock(j, 32)", False),
        ("A[j, j] = A[j - 1, j - 1] + B[i, j]", "MapBlock(j, 32)", True),  # again for every i
    ],
)
def test_lanes_may_scan_where_nothing_else_is_carried(
    assignment: str, steps: str, legal: bool
) -> None:
    state = State.start(parse_scop(text_of(assignment)), "reassociate")
    if legal:
        assert any(m.kind == "block" for m in _marks(script.replay(state, steps)))
    else:
        with pytest.raises(IllegalSchedule, match="carried by"):
            script.replay(state, steps)


def _marks(state: State) -> Iterator[Mark]:
    tree = state.tree
    while isinstance(tree, Loop):
        yield from tree.marks
        tree = tree.body
