"""Expressions of Python functions, typed and turned into the small loop language."""

from __future__ import annotations

import ast
import builtins
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from perfkit.errors import Location, UnsupportedError
from perfkit.frontends import promotion
from perfkit.frontends.promotion import WEAK_BOOL, WEAK_FLOAT, WEAK_INT, Type, TypeConflict, Typed
from perfkit.frontends.syntax import Element, Name, Number, Operation, Value
from perfkit.ir.expr import DTYPES, FLOATS

_BINARY = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.FloorDiv: "floordiv", ast.Mod: "mod",
}  # fmt: skip
_BITWISE = {
    ast.LShift: "shl", ast.RShift: "shr", ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor",
}  # fmt: skip
_COMPARE = {
    ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne",
}  # fmt: skip
_SAME_NAME = (
    "sqrt", "exp", "exp2", "log", "log2", "log10", "fabs", "sin", "cos", "tan", "sinh", "cosh",
    "tanh", "hypot", "cbrt", "expm1", "log1p", "copysign", "fmod",
)  # fmt: skip
_MATH: Mapping[Any, str] = {
    getattr(math, name): name
    for name in (*_SAME_NAME, "pow", "asin", "acos", "atan", "atan2", "erf")
}
_NUMPY: Mapping[Any, str] = {
    **{getattr(np, name): name for name in _SAME_NAME},
    np.power: "pow", np.arcsin: "asin", np.arccos: "acos", np.arctan: "atan",
    np.arctan2: "atan2", np.floor: "floor", np.ceil: "ceil", np.trunc: "trunc", np.rint: "rint",
    np.fmin: "fmin", np.fmax: "fmax",
}  # fmt: skip
_TO_INTEGER: Mapping[Any, str] = {
    math.floor: "floor", math.ceil: "ceil", math.trunc: "trunc", round: "rint",
}  # fmt: skip
_MISSING = object()


@dataclass
class Names:
    """What the names of a function mean; filled by the statement translator."""

    arrays: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    """The extents of every array argument."""
    dtypes: dict[str, str] = field(default_factory=dict)
    """The element type of every array argument."""
    values: dict[str, Typed] = field(default_factory=dict)
    """Scalar arguments, sizes and loop variables in scope."""
    variables: dict[str, Name] = field(default_factory=dict)
    """Scalar variables that the function assigns; each round of typing refines their types."""
    types: dict[str, Type] = field(default_factory=dict)
    natural: set[str] = field(default_factory=set)
    """Names whose value is known not to be negative."""
    outer: Mapping[str, Any] = field(default_factory=dict)
    """Globals and closure of the function."""


class ValueTranslator:
    """Translates expressions; ``names`` says what its names mean."""

    def __init__(self, names: Names, file: str, offset: int) -> None:
        self.names = names
        self.file = file
        self.offset = offset

    def location(self, node: ast.AST) -> Location:
        return Location(self.file, getattr(node, "lineno", 0) + self.offset)

    def refuse(self, node: ast.AST, why: str, construct: str = "") -> NoReturn:
        raise UnsupportedError(self.location(node), construct or _text(node), why)

    @contextmanager
    def conflicts(self, node: ast.AST) -> Iterator[None]:
        try:
            yield
        except TypeConflict as error:
            raise UnsupportedError(self.location(node), _text(node), str(error)) from None

    # -- values ------------------------------------------------------------------------------

    def value(self, node: ast.expr) -> Typed:
        with self.conflicts(node):
            return self._value(node)

    def _value(self, node: ast.expr) -> Typed:
        match node:
            case ast.Constant(value=bool() | int() | float() as number):
                return promotion.literal(number)
            case ast.Name(id=name):
                return self.name(node, name)
            case ast.Subscript() | ast.Attribute():
                return self.reference(node)
            case ast.UnaryOp():
                return self.unary(node)
            case ast.BinOp(left=left, op=op, right=right):
                return self.arithmetic(node, op, self.value(left), self.value(right))
            case ast.Compare() | ast.BoolOp():
                return Typed(self.condition(node), True)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return promotion.choose(self.condition(test), self.value(body), self.value(orelse))
            case ast.Call():
                return self.call(node)
        self.refuse(node, "this kind of expression cannot be optimized; use scalars and elements")

    def name(self, node: ast.AST, name: str) -> Typed:
        if name in self.names.values:
            return self.names.values[name]
        if name in self.names.variables:
            kind = self.names.types.get(name, WEAK_INT)
            return Typed(Name(kind.dtype, self.names.variables[name].name), kind.weak)
        if name in self.names.arrays:
            self.refuse(node, "a whole array is used; write a loop over its elements", name)
        outer = self.names.outer.get(name, _MISSING)
        if isinstance(outer, (bool, int, float, np.number, np.bool_)):
            return promotion.literal(outer)  # type: ignore[arg-type]
        if outer is _MISSING:
            self.refuse(
                node, "is not defined here (a loop variable is unknown after its loop)", name
            )
        self.refuse(node, "only numbers can be taken from outside the function", name)

    def unary(self, node: ast.UnaryOp) -> Typed:
        if isinstance(node.op, ast.Not):
            return Typed(Operation("bool", "not", (self.condition(node.operand),)), True)
        operand = self.value(node.operand)
        if operand.type.kind == "bool":
            self.refuse(node, "arithmetic on truth values; convert them with int() first")
        if isinstance(node.op, ast.UAdd):
            return operand
        if isinstance(node.op, ast.Invert):
            if operand.type.kind != "int":
                self.refuse(node, "bit operations need integers")
            return Typed(Operation(operand.dtype, "invert", (operand.value,)), operand.weak)
        if isinstance(operand.value, Number):
            return Typed(Number(operand.dtype, -operand.value.value), operand.weak)
        return Typed(Operation(operand.dtype, "neg", (operand.value,)), operand.weak)

    def arithmetic(self, node: ast.AST, op: ast.operator, a: Typed, b: Typed) -> Typed:
        with self.conflicts(node):
            if isinstance(op, ast.Div):
                return promotion.divide(a, b)
            if isinstance(op, ast.Pow):
                return self.power(node, a, b)
            if type(op) in _BITWISE:
                if "float" in (a.type.kind, b.type.kind):
                    self.refuse(node, "bit operations need integers")
                if a.dtype == b.dtype == "bool" and type(op) in (ast.BitAnd, ast.BitOr):
                    name = "land" if isinstance(op, ast.BitAnd) else "lor"
                    return Typed(Operation("bool", name, (a.value, b.value)), a.weak and b.weak)
                return promotion.operate(_BITWISE[type(op)], a, b)
            if type(op) in _BINARY:
                return promotion.operate(_BINARY[type(op)], a, b)
        self.refuse(node, "this operator cannot be used on scalars")

    def power(self, node: ast.AST, base: Typed, exponent: Typed) -> Typed:
        number = exponent.value.value if isinstance(exponent.value, Number) else None
        if isinstance(number, int) and 1 <= number <= 4:
            square = promotion.operate("mul", base, base) if number > 1 else base
            if number == 4:
                return promotion.operate("mul", square, square)
            return promotion.operate("mul", square, base) if number == 3 else square
        kind = promotion.promote(base.type, exponent.type)
        if kind.kind != "float" and not (isinstance(number, int) and number < 0 and base.weak):
            self.refuse(node, "a power of integers needs a constant exponent from 1 to 4")
        if kind.kind != "float":
            kind = WEAK_FLOAT
        args = tuple(promotion.convert(v.value, kind.dtype) for v in (base, exponent))
        return Typed(Operation(kind.dtype, "call", args, "pow"), kind.weak)

    # -- conditions --------------------------------------------------------------------------

    def condition(self, node: ast.expr) -> Value:
        """The truth of an expression, as a value of type bool."""
        with self.conflicts(node):
            match node:
                case ast.BoolOp(op=op, values=parts):
                    name = "land" if isinstance(op, ast.And) else "lor"
                    result = self.condition(parts[0])
                    for part in parts[1:]:
                        result = Operation("bool", name, (result, self.condition(part)))
                    return result
                case ast.Compare(left=left, ops=ops, comparators=comparators):
                    return self.comparison(node, [left, *comparators], ops)
                case ast.UnaryOp(op=ast.Not(), operand=operand):
                    return Operation("bool", "not", (self.condition(operand),))
                case _:
                    return promotion.convert(self.value(node).value, "bool")

    def comparison(
        self, node: ast.AST, operands: Sequence[ast.expr], ops: Sequence[ast.cmpop]
    ) -> Value:
        values = [self.value(o) for o in operands]
        result: Value | None = None
        for a, op, b in zip(values, ops, values[1:], strict=False):
            if type(op) not in _COMPARE:
                self.refuse(node, "only < <= > >= == != compare scalars")
            one = promotion.compare(_COMPARE[type(op)], a, b).value
            result = one if result is None else Operation("bool", "land", (result, one))
        assert result is not None
        return result

    # -- elements and attributes -------------------------------------------------------------

    def reference(self, node: ast.Subscript | ast.Attribute) -> Typed:
        shape = self.shape_of(node.value) if isinstance(node, ast.Subscript) else None
        if shape is not None and isinstance(node, ast.Subscript):
            return Typed(self.dimension(node, shape), True)
        if isinstance(node, ast.Attribute):
            array = node.value.id if isinstance(node.value, ast.Name) else ""
            if array in self.names.arrays:
                if node.attr == "ndim":
                    return promotion.literal(len(self.names.arrays[array]))
                self.refuse(node, "only .shape[k] and .ndim of an array can be used")
            constant = self.constant(node)
            if constant is not None:
                return promotion.literal(constant)
            self.refuse(node, "is not a number")
        element = self.element(node)
        return Typed(element)

    def shape_of(self, node: ast.expr) -> tuple[Value, ...] | None:
        """The extents of ``A`` when the node is ``A.shape``."""
        match node:
            case ast.Attribute(value=ast.Name(id=array), attr="shape"):
                return self.names.arrays.get(array)
        return None

    def dimension(self, node: ast.Subscript, shape: tuple[Value, ...]) -> Value:
        index = self.value(node.slice).value
        if not isinstance(index, Number) or not -len(shape) <= index.value < len(shape):
            self.refuse(node, f"the dimension must be a constant below {len(shape)}")
        return shape[int(index.value)]

    def constant(self, node: ast.Attribute) -> float | int | None:
        """``math.pi``, ``np.inf``: a number inside a module."""
        if isinstance(node.value, ast.Name) and not self.is_local(node.value.id):
            module = self.names.outer.get(node.value.id)
            if module is math or module is np:
                found = getattr(module, node.attr, None)
                if isinstance(found, (int, float)):
                    return found
        return None

    def is_local(self, name: str) -> bool:
        names = self.names
        return name in names.values or name in names.variables or name in names.arrays

    def element(self, node: ast.Subscript) -> Element:
        """``A[i, j]`` or ``A[i][j]``, with Python's meaning of negative subscripts."""
        indices: list[ast.expr] = []
        target: ast.expr = node
        while isinstance(target, ast.Subscript):
            part = target.slice
            indices[:0] = part.elts if isinstance(part, ast.Tuple) else [part]
            target = target.value
        if not isinstance(target, ast.Name) or target.id not in self.names.arrays:
            self.refuse(node, "only array arguments can be subscripted")
        array, shape = target.id, self.names.arrays[target.id]
        for index in indices:
            if isinstance(index, ast.Slice):
                self.refuse(node, "slices cannot be used; write a loop over the elements")
        if len(indices) != len(shape):
            self.refuse(
                node, f"{array} has {len(shape)} dimensions, but {len(indices)} subscripts; only "
                "single elements can be used",
            )  # fmt: skip
        return Element(
            self.names.dtypes[array],
            array,
            tuple(self.subscript(i, extent) for i, extent in zip(indices, shape, strict=True)),
        )

    def subscript(self, node: ast.expr, extent: Value) -> Value:
        index = self.value(node)
        if index.type.kind != "int":
            self.refuse(node, f"a subscript must be an integer, not {index.type}")
        value = promotion.convert(index.value, "int64")
        if self.natural(value):
            return value
        wrapped = Operation("int64", "add", (value, extent))
        if isinstance(value, Number):
            return wrapped
        zero = Number("int64", 0)
        # Below -extent there is no element either way: that stays as it is, and out of bounds.
        negative = Operation("bool", "lt", (value, zero))
        exists = Operation("bool", "ge", (wrapped, zero))
        wraps = Operation("bool", "land", (negative, exists))
        return Operation("int64", "select", (wraps, wrapped, value))

    def natural(self, value: Value) -> bool:
        """Whether the value is plainly not negative; False when in doubt."""
        match value:
            case Number(value=number):
                return number >= 0
            case Name(name=name):
                return name in self.names.natural
            case Operation(op="add" | "mul" | "min", args=args):
                return all(map(self.natural, args))
            case Operation(op="max", args=args):
                return any(map(self.natural, args))
            case Operation(op="floordiv" | "shr", args=(a, b)):
                return self.natural(a) and self.natural(b)
            case Operation(op="mod", args=(_, Number(value=divisor))):
                return divisor > 0
        return False

    # -- calls -------------------------------------------------------------------------------

    def call(self, node: ast.Call) -> Typed:
        if node.keywords:
            self.refuse(node, "keyword arguments cannot be used in calls")
        function = self.function(node)
        if function is len:
            return self.length(node)
        args = [self.value(a) for a in node.args]
        if function in (min, max):
            if len(args) < 2:
                self.refuse(node, "needs at least two scalars")
            return promotion.smallest(function.__name__, args)
        if function in (np.minimum, np.maximum):
            self.arity(node, args, 2)
            return _propagating("le" if function is np.minimum else "ge", *args)
        if function in _MATH or function in _NUMPY:
            name = _MATH.get(function) or _NUMPY[function]
            self.arity(node, args, 2 if name in _TWO else 1)
            if name == "log" and len(args) != 1:
                self.refuse(node, "only the natural logarithm; use log2 or log10")
            return promotion.call(name, args, python=function in _MATH)
        self.arity(node, args, 1)
        (only,) = args
        if function in (abs, np.abs):
            if only.type.kind == "bool":
                self.refuse(node, "arithmetic on truth values; convert them with int() first")
            name = "fabs" if only.dtype in FLOATS else "abs"
            return Typed(Operation(only.dtype, "call", (only.value,), name), only.weak)
        if function in _TO_INTEGER:
            if only.type.kind != "float":
                return only
            rounded = Operation(only.dtype, "call", (only.value,), _TO_INTEGER[function])
            return Typed(promotion.convert(rounded, "int64"), True)
        kind = _casts(function)
        if kind is not None:
            return Typed(promotion.convert(only.value, kind.dtype), kind.weak)
        self.refuse(
            node, "this function cannot be called; use math, numpy's scalar functions, min, max, "
            "abs, or write its body here",
        )  # fmt: skip

    def arity(self, node: ast.AST, args: Sequence[Typed], count: int) -> None:
        if len(args) != count:
            self.refuse(node, f"takes {count} argument{'s' * (count > 1)} here")

    def length(self, node: ast.Call) -> Typed:
        match node.args:
            case [ast.Name(id=array)] if array in self.names.arrays:
                return Typed(self.names.arrays[array][0], True)
        self.refuse(node, "only the length of an array argument is known")

    def function(self, node: ast.Call) -> Any:
        """The object that is called, without running any of the user's code."""
        match node.func:
            case ast.Name(id=name) if not self.is_local(name):
                found = self.names.outer.get(name, _MISSING)
                found = getattr(builtins, name, None) if found is _MISSING else found
            case ast.Attribute(value=ast.Name(id=module), attr=name) if not self.is_local(module):
                owner = self.names.outer.get(module)
                found = getattr(owner, name, None) if owner is math or owner is np else None
            case _:
                found = None
        try:
            hash(found)
        except TypeError:
            found = None
        return found


_TWO = frozenset(["pow", "atan2", "fmod", "hypot", "copysign", "fmin", "fmax"])


def _casts(function: Any) -> Type | None:
    python: Mapping[Callable[..., Any], Type] = {
        float: WEAK_FLOAT, int: WEAK_INT, bool: WEAK_BOOL
    }  # fmt: skip
    if function in python:
        return python[function]
    if isinstance(function, type) and issubclass(function, np.generic):
        name = np.dtype(function).name
        return Type(name, False) if name in DTYPES else None
    return None


def _propagating(op: str, a: Typed, b: Typed) -> Typed:
    """numpy.minimum and maximum: a NaN on either side is the result."""
    kind, (x, y) = promotion.common((a, b))
    test: Value = Operation("bool", op, (x, y))
    if kind.kind == "float":
        test = Operation("bool", "lor", (test, Operation("bool", "ne", (x, x))))
    return Typed(Operation(kind.dtype, "select", (test, x, y)))


def _text(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, (ast.expr, ast.stmt)) else type(node).__name__
