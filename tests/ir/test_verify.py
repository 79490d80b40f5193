"""Each rule of the IR's spec, broken once."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from perfkit.errors import InternalError
from perfkit.ir import expr as ir
from perfkit.ir.affine import Affine, Constraint, Domain
from perfkit.ir.scop import Array, ScalarArgument, Scop, Statement
from perfkit.ir.tree import Leaf, Loop, Sequence, parse
from perfkit.ir.verify import verify

N, K, Q = (Affine.variable(v) for v in "niq")
LOAD = ir.Load("float64", ir.Access("A", (K,)))
VALUE = ir.Binary("float64", "mul", LOAD, ir.Scalar("float64", "x"))
GOOD = Scop(
    "f",
    ("n",),
    Domain(()).where(Constraint(N)),
    (Array("A", "float64", (N,)), Array("t", "float64", (), True, False)),
    (ScalarArgument("x", "float64"),),
    (Statement("S0", Domain(("i",)).where(Constraint(K)), ir.Access("A", (K,)), VALUE),),
    parse("for i(S0: i) S0"),
)


def statement(**change: object) -> Scop:
    return replace(GOOD, statements=(replace(GOOD.statements[0], **change),))  # type: ignore[arg-type]


def value(e: ir.Expr) -> Scop:
    return statement(value=e)


def test_good_scop_passes() -> None:
    verify(GOOD)
    verify(GOOD, parse("for t(S0: floor(i/8)) for i(S0: i + n) parallel S0"))


ONE = ir.Const("float64", 1.0)
INT = ir.Const("int64", 1)
TRUE = ir.Const("bool", True)
BROKEN: list[tuple[str, Callable[[], Scop]]] = [
    ("named 'A'", lambda: replace(GOOD, arrays=(*GOOD.arrays, GOOD.arrays[0]))),
    ("named 'n'", lambda: replace(GOOD, scalars=(ScalarArgument("n", "float64"),))),
    ("two statements", lambda: replace(GOOD, statements=GOOD.statements * 2)),
    ("type float16", lambda: replace(GOOD, arrays=(Array("A", "float16", (N,)),))),
    ("shape of A", lambda: replace(GOOD, arrays=(Array("A", "float64", (K,)),))),
    ("local and live out", lambda: replace(GOOD, arrays=(
        *GOOD.arrays, Array("u", "float64", (), True, True)))),
    ("the context", lambda: replace(GOOD, context=Domain(()).where(Constraint(Q)))),
    ("context has iterators", lambda: replace(GOOD, context=Domain(("i",)))),
    ("two iterators", lambda: statement(domain=Domain(("i", "i")))),
    ("are parameters", lambda: statement(domain=Domain(("i", "n")))),
    ("domain of S0", lambda: statement(domain=Domain(("i",)).where(Constraint(Q)))),
    ("unknown 'B'", lambda: statement(write=ir.Access("B", (K,)))),
    ("2 subscripts", lambda: statement(write=ir.Access("A", (K, K)))),
    (r"A\[q\]", lambda: statement(write=ir.Access("A", (Q,)))),
    ("writes int64", lambda: value(INT)),
    ("Load mixes", lambda: value(ir.Cast("float64", ir.Load("int64", ir.Access("A", (K,)))))),
    ("unknown scalar", lambda: value(ir.Scalar("float64", "y"))),
    ("AffineValue has type", lambda: value(ir.AffineValue("float64", K))),
    ("AffineValue mentions", lambda: value(ir.Cast("float64", ir.AffineValue("int64", Q)))),
    ("Binary add mixes", lambda: value(ir.Binary("float64", "add", ONE, INT))),
    ("tdiv on float64", lambda: value(ir.Binary("float64", "tdiv", ONE, ONE))),
    ("and on float64", lambda: value(ir.Binary("float64", "and", ONE, ONE))),
    ("div on int64", lambda: value(ir.Cast("float64", ir.Binary("int64", "div", INT, INT)))),
    ("land mixes", lambda: value(ir.Binary("float64", "land", ONE, ONE))),
    ("Compare mixes", lambda: value(ir.Cast("float64", ir.Compare("bool", "lt", ONE, INT)))),
    ("Select mixes", lambda: value(ir.Select("float64", ONE, ONE, ONE))),
    ("Select mixes", lambda: value(ir.Select("float64", TRUE, ONE, INT))),
    ("Unary mixes", lambda: value(ir.Unary("float64", "not", TRUE))),
    ("calls sqrt with 2", lambda: value(ir.Call("float64", "sqrt", (ONE, ONE)))),
    ("calls rand", lambda: value(ir.Call("float64", "rand", ()))),
    ("tree orders", lambda: replace(GOOD, tree=Leaf("S9"))),
    ("stands twice", lambda: replace(GOOD, tree=Sequence((Leaf("S0"), Leaf("S0"))))),
    ("schedules", lambda: replace(GOOD, tree=Loop("i", (), Leaf("S0")))),
    ("loop i, statement S0", lambda: replace(GOOD, tree=parse("for i(S0: q) S0"))),
]  # fmt: skip


@pytest.mark.parametrize(("match", "make"), BROKEN, ids=[m for m, _ in BROKEN])
def test_broken_rule_is_named(match: str, make: Callable[[], Scop]) -> None:
    with pytest.raises(InternalError, match=match):
        verify(make())
