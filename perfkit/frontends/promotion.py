"""Python's and NumPy's typing rules (NEP 50) for scalar expressions.

A value is *weak* when Python made it (a literal, a loop variable, a result of ``math``): next to a
NumPy value it takes that value's type, so float32 data stay float32. NumPy values are strong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perfkit.frontends.syntax import Number, Operation, Value
from perfkit.ir.expr import DTYPES, FLOATS, INTEGERS


@dataclass(frozen=True, slots=True)
class Type:
    """The static type of a Python value."""

    dtype: str
    weak: bool

    @property
    def kind(self) -> str:
        if self.dtype in FLOATS:
            return "float"
        return "bool" if self.dtype == "bool" else "int"

    def __str__(self) -> str:
        names = {"float": "float", "int": "int", "bool": "bool"}
        return names[self.kind] if self.weak else self.dtype


WEAK_INT = Type("int64", True)
WEAK_FLOAT = Type("float64", True)
WEAK_BOOL = Type("bool", True)
_ORDER = ("bool", "int", "float")


class TypeConflict(Exception):
    """Two types have no common one that keeps the program's meaning."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A value with its weakness; the dtype is the value's own."""

    value: Value
    weak: bool = False

    @property
    def type(self) -> Type:
        return Type(self.value.dtype, self.weak)

    @property
    def dtype(self) -> str:
        return self.value.dtype


def literal(number: bool | int | float) -> Typed:
    """A Python number in the source or among its globals."""
    if isinstance(number, np.generic):
        name = number.dtype.name
        if name not in DTYPES:
            raise TypeConflict(f"numbers of type {name} are not known")
        return Typed(Number(name, number.item()))
    kind = WEAK_BOOL if isinstance(number, bool) else WEAK_INT
    if isinstance(number, float):
        kind = WEAK_FLOAT
    return Typed(Number(kind.dtype, number), True)


def promote(a: Type, b: Type) -> Type:
    """The type of an arithmetic operation on two scalars."""
    if a.weak and b.weak:
        kind = max(a.kind, b.kind, key=_ORDER.index)
        return WEAK_FLOAT if kind == "float" else WEAK_INT
    if a.weak or b.weak:
        weak, strong = (a, b) if a.weak else (b, a)
        if weak.kind == "float" and strong.kind != "float":
            return Type("float64", False)
        if weak.kind == "int" and strong.kind == "bool":
            return Type("int64", False)
        return strong
    found = np.result_type(a.dtype, b.dtype).name
    if found not in DTYPES:
        raise TypeConflict(f"{a} and {b} combine to {found}, which is not known")
    return Type(found, False)


def join(a: Type, b: Type) -> Type:
    """The type of a variable that holds an ``a`` here and a ``b`` there.

    Weak values adapt. Two strong floating-point types would round differently, so they conflict.
    """
    if a == b:
        return a
    if a.weak and b.weak:
        return max(a, b, key=lambda t: _ORDER.index(t.kind))
    result = promote(a, b)
    floats = {t.dtype for t in (a, b) if not t.weak and t.kind == "float"}
    mixed = not a.weak and not b.weak and a.kind != b.kind
    if len(floats) > 1 or mixed:
        raise TypeConflict(
            f"it is {a} in one place and {b} in another; convert one, or use two variables"
        )
    return result


def convert(value: Value, dtype: str) -> Value:
    if value.dtype == dtype:
        return value
    if isinstance(value, Number) and dtype != "bool":
        if dtype == "float64":
            return Number(dtype, float(value.value))
        if dtype in INTEGERS and value.dtype not in FLOATS:
            number = int(value.value)
            limits = np.iinfo(dtype)
            if limits.min <= number <= limits.max:
                return Number(dtype, number)
    if dtype == "bool":
        zero = Number(value.dtype, 0.0 if value.dtype in FLOATS else 0)
        return Operation("bool", "ne", (value, zero))
    return Operation(dtype, "cast", (value,))


def common(values: Sequence[Typed], rule: str = "promote") -> tuple[Type, tuple[Value, ...]]:
    """All values converted to their common type, by :func:`promote` or by :func:`join`."""
    result = values[0].type
    for typed in values[1:]:
        result = promote(result, typed.type) if rule == "promote" else join(result, typed.type)
    return result, tuple(convert(v.value, result.dtype) for v in values)


def operate(op: str, *operands: Typed) -> Typed:
    """Arithmetic on promoted operands."""
    kind, values = common(operands)
    if kind.kind == "bool":
        raise TypeConflict("arithmetic on truth values; convert them with int() first")
    return Typed(Operation(kind.dtype, op, values), kind.weak)


def divide(a: Typed, b: Typed) -> Typed:
    """True division: integers become double."""
    kind, _ = common((a, b))
    if kind.kind != "float":
        kind = Type("float64", kind.weak)
    values = (convert(a.value, kind.dtype), convert(b.value, kind.dtype))
    return Typed(Operation(kind.dtype, "div", values), kind.weak)


def compare(op: str, a: Typed, b: Typed) -> Typed:
    if a.dtype == b.dtype == "bool":
        return Typed(Operation("bool", op, (a.value, b.value)), True)
    kind, values = common((a, b))
    if kind.kind == "int" and a.weak != b.weak and kind.dtype != "uint64":
        values = (convert(a.value, "int64"), convert(b.value, "int64"))  # exact, as NumPy does
    return Typed(Operation("bool", op, values), True)


def choose(condition: Value, if_true: Typed, if_false: Typed) -> Typed:
    kind, (a, b) = common((if_true, if_false), "join")
    return Typed(Operation(kind.dtype, "select", (condition, a, b)), kind.weak)


def smallest(op: str, values: Sequence[Typed]) -> Typed:
    """Python's ``min`` and ``max``: the first of equal values, as ``b < a ? b : a`` gives."""
    kind, converted = common(values, "join")
    result = converted[0]
    for value in converted[1:]:
        result = Operation(kind.dtype, op, (value, result))
    return Typed(result, kind.weak)


def call(function: str, args: Sequence[Typed], *, python: bool) -> Typed:
    """A function on floats: ``math`` computes in double and returns a Python float."""
    if python:
        kind = WEAK_FLOAT
    else:
        kind, _ = common(args)
        if kind.kind != "float":
            kind = Type("float64", False)
        kind = Type(kind.dtype, False)
    values = tuple(convert(a.value, kind.dtype) for a in args)
    return Typed(Operation(kind.dtype, "call", values, function), kind.weak)
