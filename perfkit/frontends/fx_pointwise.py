"""Elementwise aten operators as typed expressions, with torch's type promotion.

A rule gets the operands and the element type of the result and gives one expression. Operands that
are tensors come as expressions of their own type, Python numbers as numbers; which type the
operator computes in follows torch: tensors with dimensions decide, a number only changes the kind
(integer to float).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perfkit.ir.expr import (
    FLOATS,
    INTEGERS,
    Binary,
    BinaryOp,
    Call,
    Cast,
    Compare,
    CompareOp,
    Const,
    Expr,
    Load,
    Select,
    Unary,
)

Operand = Expr | bool | int | float


class Unsuited(Exception):
    """The operator has no such form here; the text says why."""


def convert(value: Operand, dtype: str) -> Expr:
    """The operand in ``dtype``, as torch converts (anything but zero is true)."""
    if not isinstance(value, Expr):
        if dtype == "bool":
            return Const(dtype, bool(value))
        if dtype in FLOATS:
            return Const(dtype, float(value))
        if isinstance(value, float) and not value.is_integer():
            raise Unsuited(f"the number {value} in an operation on {dtype}")
        return Const(dtype, int(value))
    if value.dtype == dtype:
        return value
    if dtype == "bool":
        return Compare("bool", "ne", value, convert(0, value.dtype))
    if isinstance(value, Const):
        return convert(value.value, dtype)
    return Cast(dtype, value)


# -- rules ------------------------------------------------------------------------------------

Rule = Callable[[Sequence[Operand], str, Mapping[str, Any]], Expr]


def _floating(dtype: str) -> str:
    if dtype not in FLOATS:
        raise Unsuited(f"computes in {dtype}")
    return dtype


def _call(function: str) -> Rule:
    def rule(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
        return Call(_floating(dtype), function, (convert(args[0], dtype),))

    return rule


def _binary(op: BinaryOp) -> Rule:
    def rule(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
        left, right = (convert(a, dtype) for a in args[:2])
        alpha = options.get("alpha", 1)
        if alpha != 1:
            right = Binary(dtype, "mul", right, convert(alpha, dtype))
        if dtype == "bool":
            logical: Mapping[str, BinaryOp] = {"add": "lor", "mul": "land"}
            if op not in logical:
                raise Unsuited(f"{op} of booleans")
            return Binary(dtype, logical[op], left, right)
        return Binary(dtype, op, left, right)

    return rule


def _divide(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
    if options.get("rounding_mode") is not None:
        raise Unsuited("division with a rounding mode")
    return Binary(_floating(dtype), "div", convert(args[0], dtype), convert(args[1], dtype))


def _bits(op: BinaryOp, logical: BinaryOp) -> Rule:
    def rule(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
        left, right = (convert(a, dtype) for a in args[:2])
        if dtype == "bool" and logical == "xor":
            return Compare(dtype, "ne", left, right)
        return Binary(dtype, logical if dtype == "bool" else op, left, right)

    return rule


def _logical(op: BinaryOp) -> Rule:
    def rule(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
        left, right = (convert(a, "bool") for a in args[:2])
        if op == "xor":
            return Compare("bool", "ne", left, right)
        return Binary("bool", op, left, right)

    return rule


def _compare(op: CompareOp) -> Rule:
    def rule(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
        common = promoted(args)
        return Compare("bool", op, convert(args[0], common), convert(args[1], common))

    return rule


def _extreme(op: CompareOp) -> Rule:
    """maximum and minimum: a NaN on either side is the result."""

    def rule(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
        left, right = (convert(a, dtype) for a in args[:2])
        wins: Expr = Compare("bool", op, left, right)
        if dtype in FLOATS:
            wins = Binary("bool", "lor", wins, Compare("bool", "ne", left, left))
        return Select(dtype, wins, left, right)

    return rule


def _clamp(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
    low = args[1] if len(args) > 1 else options.get("min")
    high = args[2] if len(args) > 2 else options.get("max")
    value = convert(args[0], dtype)
    limits: tuple[tuple[CompareOp, Operand | None], ...] = (("lt", low), ("gt", high))
    for op, limit in limits:
        if limit is not None:
            bound = convert(limit, dtype)
            value = Select(dtype, Compare("bool", op, value, bound), bound, value)
    return value


def _clamp_max(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
    return _clamp(args[:1], dtype, {"max": args[1]})


def _relu(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
    return _clamp((args[0], 0), dtype, {})


def _negate(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
    if dtype == "bool":
        raise Unsuited("minus of a boolean")
    return Unary(dtype, "neg", convert(args[0], dtype))


def _invert(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
    if dtype == "bool":
        return Unary(dtype, "not", convert(args[0], dtype))
    return Unary(dtype, "invert", convert(args[0], dtype))


def _not(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
    return Unary("bool", "not", convert(args[0], "bool"))


def _absolute(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
    if dtype == "bool" or dtype.startswith("u"):
        return convert(args[0], dtype)
    return Call(dtype, "abs", (convert(args[0], dtype),))


def _one_over(inner: Rule | None) -> Rule:
    def rule(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
        below = convert(args[0], _floating(dtype)) if inner is None else inner(args, dtype, {})
        return Binary(dtype, "div", Const(dtype, 1.0), below)

    return rule


def _one_plus_exp_minus(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
    minus = Unary(_floating(dtype), "neg", convert(args[0], dtype))
    return Binary(dtype, "add", Const(dtype, 1.0), Call(dtype, "exp", (minus,)))


def _power(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
    base, exponent = args[0], args[1]
    x = convert(base, dtype)
    if isinstance(exponent, (bool, int, float)):
        if exponent in (2, 3):
            square = Binary(dtype, "mul", x, x)
            return square if exponent == 2 else Binary(dtype, "mul", square, x)
        if exponent == 1:
            return x
        if dtype in FLOATS and exponent == 0.5:
            return Call(dtype, "sqrt", (x,))
        if dtype in FLOATS and exponent == -1:
            return Binary(dtype, "div", Const(dtype, 1.0), x)
    return Call(_floating(dtype), "pow", (x, convert(exponent, dtype)))


def _where(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
    condition = convert(args[0], "bool")
    return Select(dtype, condition, convert(args[1], dtype), convert(args[2], dtype))


def _cast(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
    return convert(args[0], dtype)


def _multiply_add(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
    a, b, c = (convert(x, _floating(dtype)) for x in args)
    return Binary(dtype, "add", Binary(dtype, "mul", a, b), c)


def _square(args: Sequence[Operand], dtype: str, options: Mapping[str, Any]) -> Expr:
    return _power((args[0], 2), dtype, {})


RULES: Mapping[str, Rule] = {
    **{name: _call(name) for name in (
        "exp", "exp2", "log", "log2", "log10", "log1p", "expm1", "sqrt", "sin", "cos", "tan",
        "asin", "acos", "atan", "sinh", "cosh", "tanh", "erf", "floor", "ceil", "trunc",
    )},
    "round": _call("rint"),
    "add": _binary("add"), "sub": _binary("sub"), "mul": _binary("mul"), "div": _divide,
    "bitwise_and": _bits("and", "land"), "bitwise_or": _bits("or", "lor"),
    "bitwise_xor": _bits("xor", "xor"),
    "logical_and": _logical("land"), "logical_or": _logical("lor"), "logical_xor": _logical("xor"),
    "lt": _compare("lt"), "le": _compare("le"), "gt": _compare("gt"), "ge": _compare("ge"),
    "eq": _compare("eq"), "ne": _compare("ne"),
    "maximum": _extreme("gt"), "minimum": _extreme("lt"),
    "clamp": _clamp, "clamp_min": _clamp, "clamp_max": _clamp_max,
    "relu": _relu, "neg": _negate, "abs": _absolute,
    "bitwise_not": _invert, "logical_not": _not, "pow": _power, "square": _square,
    "reciprocal": _one_over(None), "rsqrt": _one_over(_call("sqrt")),
    "sigmoid": _one_over(_one_plus_exp_minus),
    "where": _where, "fma": _multiply_add, "convert_element_type": _cast, "_to_copy": _cast,
}  # fmt: skip
"""Rules by the operator's name without overload."""



def promoted(operands: Sequence[Operand]) -> str:
    """The type that torch compares operands in."""
    tensors = [o.dtype for o in operands if isinstance(o, Expr)]
    numbers = [o for o in operands if not isinstance(o, Expr)]
    kinds = [_kind(d) for d in tensors]
    top = max(kinds, default=0)
    best = [d for d in tensors if _kind(d) == top]
    if len(set(best)) > 1:
        # Among floats, or among integers, the wider one; of equal width the signed one.
        best.sort(key=lambda d: (int("".join(c for c in d if c.isdigit())), d[0] != "u"))
        if top == 1 and "uint8" in best and best[-1] == "int8":
            return "int16"
    wanted = max((_kind_of_number(n) for n in numbers), default=0)
    if wanted > top:
        return ("bool", "int64", "float32")[wanted]
    return best[-1]


def _kind(dtype: str) -> int:
    return 2 if dtype in FLOATS else 1 if dtype in INTEGERS else 0


def _kind_of_number(value: bool | int | float) -> int:
    return 0 if isinstance(value, bool) else 1 if isinstance(value, int) else 2


def cost(expr: Expr) -> int:
    """About how many additions the value costs, loads not counted."""
    match expr:
        case Const() | Load():
            return 0
        case Cast(arg=arg) | Unary(arg=arg):
            return 1 + cost(arg)
        case Binary(left=a, right=b) | Compare(left=a, right=b):
            heavy = isinstance(expr, Binary) and expr.op == "div"
            return (4 if heavy else 1) + cost(a) + cost(b)
        case Select(condition=c, if_true=a, if_false=b):
            return 1 + cost(c) + cost(a) + cost(b)
        case Call(args=args):
            return 10 + sum(map(cost, args))
        case _:
            return 0



__all__ = ["RULES", "Operand", "Rule", "Unsuited", "convert", "cost", "promoted"]
