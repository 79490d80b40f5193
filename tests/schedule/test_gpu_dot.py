"""What an update adds to its element: neutral operands vanish, and nothing else does."""

from __future__ import annotations

import math

import pytest

from perfkit.ir.affine import Affine
from perfkit.ir.expr import Access, Binary, Compare, Const, Expr, Load, Select
from perfkit.schedule.gpu_dot import contribution

S = Access("s")
OLD = Load("float64", S)
X = Load("float64", Access("x", (Affine.variable("i"),)))


def binary(op: str, left: Expr, right: Expr) -> Binary:
    return Binary("float64", op, left, right)  # type: ignore[arg-type]


def select(op: str, left: Expr, right: Expr, a: Expr, b: Expr) -> Select:
    compare = Compare("bool", op, left, right)  # type: ignore[arg-type]
    return Select("float64", compare, a, b)


@pytest.mark.parametrize(
    ("value", "neutral"),
    [
        (binary("add", OLD, X), 0),
        (binary("add", X, OLD), 0),
        (binary("mul", OLD, X), 1),
        (binary("min", OLD, X), math.inf),
        (binary("max", X, OLD), -math.inf),
        (select("lt", X, OLD, X, OLD), math.inf),
        (select("gt", X, OLD, X, OLD), -math.inf),
        (select("lt", OLD, X, X, OLD), -math.inf),
    ],
)
def test_the_other_operand_is_left(value: Expr, neutral: float) -> None:
    assert contribution(value, S, neutral) == X


@pytest.mark.parametrize(
    ("value", "neutral"),
    [
        (binary("mul", Const("float64", 0.0), X), 0),
        (binary("max", Const("float64", math.inf), X), math.inf),
        (binary("min", Const("float64", -math.inf), X), -math.inf),
        (select("lt", X, Const("float64", -math.inf), X, Const("float64", -math.inf)), -math.inf),
        (select("lt", X, Const("float64", 0.0), X, Const("float64", 0.0)), 0),
    ],
)
def test_constants_of_other_operations_stay(value: Expr, neutral: float) -> None:
    assert contribution(value, S, neutral) == value
