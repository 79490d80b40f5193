"""Value expressions of statements: typed, frozen trees.

Every node carries its dtype (a NumPy dtype name). Frontends make conversions explicit with
:class:`Cast`, so a generator never has to know the promotion rules of C or Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from perfkit.ir.affine import Affine

FLOATS = ("float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = (*FLOATS, *INTEGERS, "bool")
ITEMSIZE = {
    "float32": 4, "float64": 8, "int8": 1, "int16": 2, "int32": 4, "int64": 8,
    "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8, "bool": 1,
}  # fmt: skip

UnaryOp = Literal["neg", "not", "invert"]
# div: true division of floats. tdiv/tmod: C's truncating integer division and remainder.
# floordiv/mod: Python's flooring ones, integers or floats. land/lor work on bools and may
# evaluate both sides. min/max follow C's fmin/fmax on floats written as a < b ? a : b.
BinaryOp = Literal[
    "add", "sub", "mul", "div", "tdiv", "tmod", "floordiv", "mod", "min", "max",
    "and", "or", "xor", "shl", "shr", "land", "lor",
]  # fmt: skip
CompareOp = Literal["lt", "le", "gt", "ge", "eq", "ne"]
FUNCTIONS = {
    "sqrt": 1, "exp": 1, "exp2": 1, "log": 1, "log2": 1, "log10": 1, "pow": 2, "fabs": 1, "abs": 1,
    "sin": 1, "cos": 1, "tan": 1, "asin": 1, "acos": 1, "atan": 1, "atan2": 2, "sinh": 1,
    "cosh": 1, "tanh": 1, "floor": 1, "ceil": 1, "trunc": 1, "round": 1, "rint": 1, "fmin": 2,
    "fmax": 2, "fmod": 2, "hypot": 2, "cbrt": 1, "erf": 1, "expm1": 1, "log1p": 1, "copysign": 2,
    "fma": 3,
}  # fmt: skip
"""Pure functions that a statement may call, with their number of arguments."""


@dataclass(frozen=True, slots=True)
class Access:
    """An element of an array: one affine index per dimension; no index for a scalar variable."""

    array: str
    indices: tuple[Affine, ...] = ()

    def substitute(self, mapping: Mapping[str, Affine]) -> Access:
        return Access(self.array, tuple(i.substitute(mapping) for i in self.indices))

    def __str__(self) -> str:
        return f"{self.array}[{', '.join(map(str, self.indices))}]"


@dataclass(frozen=True, slots=True)
class Expr:
    """Base class; ``dtype`` is the type of the value."""

    dtype: str


@dataclass(frozen=True, slots=True)
class Const(Expr):
    value: int | float | bool


@dataclass(frozen=True, slots=True)
class AffineValue(Expr):
    """Loop iterators and sizes used as a value (``int64`` unless cast)."""

    affine: Affine


@dataclass(frozen=True, slots=True)
class Scalar(Expr):
    """A scalar argument that the program only reads, such as ``alpha``."""

    name: str


@dataclass(frozen=True, slots=True)
class Load(Expr):
    access: Access


@dataclass(frozen=True, slots=True)
class Unary(Expr):
    op: UnaryOp
    arg: Expr


@dataclass(frozen=True, slots=True)
class Binary(Expr):
    op: BinaryOp
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Compare(Expr):
    """``dtype`` is ``bool``; both sides have one dtype."""

    op: CompareOp
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Select(Expr):
    """``if_true`` where the condition holds, else ``if_false``; both sides may be evaluated."""

    condition: Expr
    if_true: Expr
    if_false: Expr


@dataclass(frozen=True, slots=True)
class Call(Expr):
    function: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Cast(Expr):
    """Conversion with C semantics (float to integer truncates)."""

    arg: Expr


def children(expr: Expr) -> tuple[Expr, ...]:
    match expr:
        case Unary(arg=arg) | Cast(arg=arg):
            return (arg,)
        case Binary(left=left, right=right) | Compare(left=left, right=right):
            return (left, right)
        case Select(condition=c, if_true=a, if_false=b):
            return (c, a, b)
        case Call(args=args):
            return args
        case _:
            return ()


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and everything below it, parents first."""
    yield expr
    for child in children(expr):
        yield from walk(child)


def loads(expr: Expr) -> tuple[Access, ...]:
    """Every access read, in evaluation order, repeats kept."""
    return tuple(e.access for e in walk(expr) if isinstance(e, Load))


def transform(expr: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """Rebuild bottom-up; ``change`` sees every node after its children were rebuilt."""
    match expr:
        case Unary() | Cast():
            expr = replace(expr, arg=transform(expr.arg, change))
        case Binary() | Compare():
            expr = replace(
                expr, left=transform(expr.left, change), right=transform(expr.right, change)
            )
        case Select():
            expr = replace(
                expr,
                condition=transform(expr.condition, change),
                if_true=transform(expr.if_true, change),
                if_false=transform(expr.if_false, change),
            )
        case Call():
            expr = replace(expr, args=tuple(transform(a, change) for a in expr.args))
    return change(expr)


def substitute(expr: Expr, mapping: Mapping[str, Affine]) -> Expr:
    """Replace iterators by affine expressions, in indices and in values."""

    def change(e: Expr) -> Expr:
        if isinstance(e, Load):
            return Load(e.dtype, e.access.substitute(mapping))
        if isinstance(e, AffineValue):
            return AffineValue(e.dtype, e.affine.substitute(mapping))
        return e

    return transform(expr, change)


def map_accesses(expr: Expr, change: Callable[[Access], Access]) -> Expr:
    def visit(e: Expr) -> Expr:
        return Load(e.dtype, change(e.access)) if isinstance(e, Load) else e

    return transform(expr, visit)


def map_loads(expr: Expr, change: Callable[[int, Access], Access]) -> Expr:
    """Like :func:`map_accesses`, with the position of each load in :func:`loads`."""
    position = -1

    def visit(e: Expr) -> Expr:
        nonlocal position
        match e:
            case Load():
                position += 1
                return Load(e.dtype, change(position, e.access))
            case Unary() | Cast():
                return replace(e, arg=visit(e.arg))
            case Binary() | Compare():
                return replace(e, left=visit(e.left), right=visit(e.right))
            case Select():
                return replace(
                    e,
                    condition=visit(e.condition),
                    if_true=visit(e.if_true),
                    if_false=visit(e.if_false),
                )
            case Call():
                return replace(e, args=tuple(visit(a) for a in e.args))
            case _:
                return e

    return visit(expr)
