"""Recognising sums of products: what a tensor core multiplies."""

from __future__ import annotations

import math
from dataclasses import dataclass

from perfkit.ir.expr import (
    FLOATS,
    Access,
    Binary,
    Cast,
    Compare,
    Const,
    Expr,
    Load,
    Select,
    Unary,
    transform,
)

NEUTRAL = {"mul": 1, "min": math.inf, "max": -math.inf}
"""What leaves the other operand as it is; minima and maxima of floats."""


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
            case Binary(op=op, left=Const(value=v), right=other) if v == NEUTRAL.get(op):
                return other
            case Binary(op=op, left=other, right=Const(value=v)) if v == NEUTRAL.get(op):
                return other
            case Select(condition=Compare(op="lt" | "le" | "gt" | "ge") as c) if (
                {c.left, c.right} == {e.if_true, e.if_false}
            ):
                smaller = (e.if_true == c.left) == (c.op in ("lt", "le"))
                limit = Const(e.dtype, NEUTRAL["min" if smaller else "max"])
                others = [x for x in (e.if_true, e.if_false) if x != limit]
                return others[0] if len(others) == 1 else e
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


def products(e: Expr) -> tuple[Product, ...]:
    """The products that an expression of floats is the sum of."""
    match e:
        case Binary(op="add" | "sub" as op, left=left, right=right) if e.dtype in FLOATS:
            last = products(right)
            if op == "sub":
                last = tuple(Product(not p.negative, p.factors) for p in last)
            return (*products(left), *last)
        case _:
            return (product(e),)


__all__ = ["Product", "contribution", "product", "products"]
