"""Recognising sums of products: what a tensor core multiplies."""

from __future__ import annotations

from dataclasses import dataclass

from perfkit.ir.expr import FLOATS, Access, Binary, Cast, Const, Expr, Load, Unary, transform


@dataclass(frozen=True, slots=True)
class Product:
    """``factors`` multiplied, negated when ``negative``."""

    negative: bool
    factors: tuple[Expr, ...]


def contribution(value: Expr, write: Access, neutral: int | float) -> Expr:
    """What an update adds to the element it writes: the value with ``neutral`` in its place."""

    def change(e: Expr) -> Expr:
        if isinstance(e, Load) and e.access == write:
            return Const(e.dtype, neutral)
        match e:
            case Cast(dtype=dtype, arg=Const(value=number)) if dtype in FLOATS:
                return Const(dtype, number)
            case Binary(op="add", left=Const(value=0), right=other):
                return other
            case Binary(op="add" | "sub", left=other, right=Const(value=0)):
                return other
            case Binary(op="sub", left=Const(value=0), right=other):
                return Unary(e.dtype, "neg", other)
            case _:
                return e

    return transform(value, change)


def product(e: Expr) -> Product:
    """The factors of an expression; the expression itself is one when it is no product."""
    match e:
        case Unary(op="neg", arg=arg) if e.dtype in FLOATS:
            inner = product(arg)
            return Product(not inner.negative, inner.factors)
        case Binary(op="mul", left=left, right=right):
            a, b = product(left), product(right)
            return Product(a.negative != b.negative, a.factors + b.factors)
        case _:
            return Product(False, (e,))


__all__ = ["Product", "contribution", "product"]
