"""The interpreter: exact arithmetic, order, and the mistakes that it catches."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.codegen import interpret
from perfkit.codegen.points import points
from perfkit.errors import BoundsError, DtypeError, InternalError, SizeError
from perfkit.ir import expr as ir
from perfkit.ir.affine import Affine, Constraint, Domain
from perfkit.ir.scop import Array, Scop, Statement
from perfkit.ir.tree import parse

N, K = Affine.variable("n"), Affine.variable("i")
RANGE = Domain(("i",)).where(Constraint(K), Constraint(N - K - 1))


def scop(value: ir.Expr, *arrays: Array, domain: Domain = RANGE, index: Affine = K) -> Scop:
    statement = Statement("S0", domain, ir.Access("A", (index,)), value)
    context = Domain(()).where(Constraint(N))
    found = (Array("A", value.dtype, (N,)), *arrays)
    return Scop("f", ("n",), context, found, (), (statement,), parse("for i(S0: i) S0"))


def evaluate(value: ir.Expr) -> Any:
    result = np.zeros(1, value.dtype)
    interpret.run(scop(value), {"n": 1}, {"A": result}, {})
    return result[0]


def const(dtype: str, value: float) -> ir.Const:
    return ir.Const(dtype, value)


def binary(op: Any, dtype: str, a: float, b: float) -> Any:
    return evaluate(ir.Binary(dtype, op, const(dtype, a), const(dtype, b)))


@pytest.mark.parametrize(
    ("op", "a", "b", "expected"),
    [
        ("tdiv", -7, 2, -3), ("tmod", -7, 2, -1), ("floordiv", -7, 2, -4), ("mod", -7, 2, 1),
        ("tdiv", 7, -2, -3), ("tmod", 7, -2, 1), ("floordiv", 7, -2, -4), ("mod", 7, -2, -1),
        ("shr", -5, 1, -3), ("shl", 3, 2, 12), ("and", -4, 7, 4), ("xor", 6, 3, 5),
        ("min", 3, -2, -2), ("max", 3, -2, 3),
    ],
)  # fmt: skip
def test_integers(op: str, a: int, b: int, expected: int) -> None:
    assert binary(op, "int32", a, b) == expected


def test_integers_wrap() -> None:
    assert binary("mul", "int32", 2**30, 4) == 0
    assert binary("add", "uint8", 250, 10) == 4
    assert binary("sub", "int64", -(2**63), 1) == 2**63 - 1
    assert binary("tdiv", "int32", -(2**31), -1) == -(2**31)


def test_floats_keep_their_precision() -> None:
    assert binary("add", "float32", 1.0, 1e-8) == np.float32(1.0)
    assert binary("add", "float64", 1.0, 1e-8) != 1.0
    assert binary("mod", "float64", -7.5, 2.0) == 0.5
    assert np.isinf(binary("div", "float64", 1.0, 0.0))


def test_extremes_return_the_second_operand_on_nan() -> None:
    assert binary("min", "float64", np.nan, 1.0) == 1.0
    assert np.isnan(binary("min", "float64", 1.0, np.nan))


def test_casts() -> None:
    assert evaluate(ir.Cast("int32", const("float64", -2.9))) == -2
    assert evaluate(ir.Cast("int8", const("int64", 200))) == -56
    assert evaluate(ir.Cast("int32", const("float64", np.nan))) == -(2**31)
    assert evaluate(ir.Cast("float32", const("float64", 0.1))) == np.float32(0.1)
    assert evaluate(ir.Cast("bool", const("float64", 0.5)))


@pytest.mark.parametrize("name", sorted(ir.FUNCTIONS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_have_their_dtype(name: str, dtype: str) -> None:
    args = tuple(const(dtype, v) for v in (0.7, 0.4, 0.2)[: ir.FUNCTIONS[name]])
    found = evaluate(ir.Call(dtype, name, args))
    assert found.dtype == dtype and np.isfinite(found)


def test_domain_errors_of_functions_are_values() -> None:
    assert np.isnan(evaluate(ir.Call("float64", "sqrt", (const("float64", -1.0),))))
    assert np.isinf(evaluate(ir.Call("float64", "exp", (const("float64", 1e4),))))
    assert np.isneginf(evaluate(ir.Call("float64", "log", (const("float64", 0.0),))))


def test_fma_rounds_once() -> None:
    a = 1.0 + 2.0**-30
    args = tuple(const("float64", v) for v in (a, a, -(1.0 + 2.0**-29)))
    assert evaluate(ir.Call("float64", "fma", args)) == 2.0**-60


def previous() -> Scop:
    value = ir.Binary("float64", "add", ir.Load("float64", ir.Access("A", (K - 1,))),
                      const("float64", 1.0))  # fmt: skip
    return scop(value, domain=RANGE.where(Constraint(K - 1)))


def test_order_is_that_of_the_tree() -> None:
    forward, backward = np.zeros(5), np.zeros(5)
    interpret.run(previous(), {"n": 5}, {"A": forward}, {})
    interpret.run(previous(), {"n": 5}, {"A": backward}, {}, parse("for i(S0: -i) S0"))
    assert forward.tolist() == [0, 1, 2, 3, 4]
    assert backward.tolist() == [0, 1, 1, 1, 1]


def test_order_of_statements() -> None:
    base = previous()
    second = replace(base.statements[0], name="S1", value=const("float64", 7.0))
    both = base.with_statements((*base.statements, second), parse("for i(S0: i, S1: i) {S0; S1}"))
    fused, split = np.zeros(4), np.zeros(4)
    interpret.run(both, {"n": 4}, {"A": fused}, {}, parse("for i(S0: i, S1: i) {S1; S0}"))
    interpret.run(both, {"n": 4}, {"A": split}, {}, parse("{for i(S1: i) S1; for j(S0: i) S0}"))
    assert fused.tolist() == [0, 1, 2, 3]
    assert split.tolist() == [0, 1, 2, 3]
    interpret.run(both, {"n": 4}, {"A": fused}, {}, parse("{for i(S0: i) S0; for j(S1: i) S1}"))
    assert fused.tolist() == [0, 7, 7, 7]


def test_tiled_order_visits_everything_once() -> None:
    values = np.zeros(11)
    tree = parse("for t(S0: floor(i/4)) for i(S0: i) S0")
    interpret.run(previous(), {"n": 11}, {"A": values}, {}, tree)
    assert values.tolist() == list(range(11))


def test_ambiguous_order_is_refused() -> None:
    with pytest.raises(InternalError, match="same time"):
        interpret.run(
            previous(), {"n": 5}, {"A": np.zeros(5)}, {}, parse("for i(S0: floor(i/2)) S0")
        )


def test_out_of_bounds_is_refused() -> None:
    bad = scop(const("float64", 1.0), index=K - 1)
    with pytest.raises(BoundsError, match="outside"):
        interpret.run(bad, {"n": 3}, {"A": np.zeros(3)}, {})


def test_arguments_are_checked() -> None:
    program = scop(const("float64", 1.0))
    with pytest.raises(DtypeError):
        interpret.run(program, {"n": 3}, {"A": np.zeros(3, np.float32)}, {})
    with pytest.raises(SizeError):
        interpret.run(program, {"n": 4}, {"A": np.zeros(3)}, {})
    with pytest.raises(SizeError, match="contradict"):
        interpret.run(program, {"n": -1}, {"A": np.zeros(0)}, {})


def test_uninitialised_locals_show() -> None:
    for dtype in ("float64", "int32", "uint8"):
        local = Array("T", dtype, (), local=True, live_out=False)
        value = ir.Cast("float64", ir.Load(dtype, ir.Access("T")))
        result = np.zeros(1)
        interpret.run(scop(value, local), {"n": 1}, {"A": result}, {})
        assert np.isnan(result[0]) or result[0] > 100


COEFFICIENTS = st.integers(-3, 3)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(COEFFICIENTS, COEFFICIENTS, st.integers(-6, 6), st.integers(0, 3)),
            max_size=3,
        ),
        min_size=1,
        max_size=2,
    )
)
def test_points_are_those_of_the_domain(rows: list[list[tuple[int, int, int, int]]]) -> None:
    x, y = Affine.variable("x"), Affine.variable("y")
    box = (
        Constraint(x + y + 6),
        Constraint(6 - x - y),
        Constraint(x - y + 5),
        Constraint(y - x + N),
    )
    pieces = []
    for row in rows:
        constraints = []
        for a, b, c, kind in row:
            e = x * a + y * b + c
            constraints.append(
                Constraint(e.mod(kind + 1), "eq") if kind > 1 else Constraint(e, ("ge", "eq")[kind])
            )
        pieces.append((*box, *constraints))
    domain = Domain(("x", "y"), tuple(pieces))
    expected = {
        (a, b) for a in range(-15, 16) for b in range(-15, 16)
        if domain.contains({"x": a, "y": b, "n": 5})
    }  # fmt: skip
    found = points(domain, {"n": 5})
    assert len(found) == len(set(found)) and set(found) == expected
