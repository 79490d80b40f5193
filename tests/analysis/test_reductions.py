"""What counts as a reduction that may be reordered."""

from __future__ import annotations

import pytest

from perfkit.analysis.reductions import reductions
from perfkit.ir.isl import Polyhedra
from tests.programs_ir import parse_scop


def found(assignment: str, dtype: str = "float64", fp: str = "reassociate") -> str | None:
    scop = parse_scop(
        f"params n\ncontext n >= 1\narray A[n, n] {dtype}\narray B[n] {dtype}\n"
        f"S0[i, j]: 0 <= i < n and 1 <= j < n: {assignment}\n"
        "tree\nfor i(S0: i) for j(S0: j) S0\n"
    )
    result = reductions(Polyhedra(scop), fp).get("S0")
    return result.op if result else None


@pytest.mark.parametrize(
    ("assignment", "op"),
    [
        ("B[i] = B[i] + A[i, j]", "add"),
        ("B[i] = A[i, j] + B[i]", "add"),
        ("B[i] = B[i] - A[i, j]", "add"),
        ("B[i] = B[i] + A[i, j] * 2.0 + A[j, i]", "add"),
        ("B[i] = B[i] * A[i, j]", "mul"),
        ("B[i] = min(B[i], A[i, j])", "min"),
        ("B[i] = max(A[i, j], B[i])", "max"),
        ("A[i, 0] = A[i, 0] + A[i, j]", "add"),
        ("B[i] = A[i, j] - B[i]", None),
        ("B[i] = B[i] + B[i]", None),
        ("B[i] = B[i] * 2.0 + A[i, j]", None),
        ("B[i] = B[j] + A[i, j]", None),
        ("A[i, j] = A[i, j] + A[j, i]", None),  # the same element where i = j
        ("B[i] = A[i, j]", None),
    ],
)
def test_forms(assignment: str, op: str | None) -> None:
    assert found(assignment) == op


def test_floats_need_permission() -> None:
    assert found("B[i] = B[i] + A[i, j]", fp="strict") is None
    assert found("B[i] = max(B[i], A[i, j])", fp="strict") is None


@pytest.mark.parametrize("op", ["+", "*", "&", "|", "^"])
def test_integers_always_commute(op: str) -> None:
    assert found(f"B[i] = B[i] {op} A[i, j]", "int32", "strict")
