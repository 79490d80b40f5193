"""Programs as text: a Python function whose annotations carry the types.

The training data hold this text, so a row can be read back years later without running anything::

    def scale(n, m, alpha: "float64", A: "float64[n, m]", B: "float64[n, m]"):
        for i in range(n):
            for j in range(m):
                B[i, j] = alpha * A[i, j]

Parameters without annotation are sizes. The subset: ``for`` over ``range``, assignments to array
elements and scalar locals (float, of the type of the arrays), affine ``if``, arithmetic, ``min``,
``max`` and the functions of :data:`perfkit.ir.expr.FUNCTIONS`. The text is a plain Python function
too, and :func:`to_c` writes it as C.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from perfkit.errors import Location, UnsupportedError
from perfkit.frontends.build import build
from perfkit.frontends.syntax import (
    Assign,
    Declare,
    Element,
    For,
    If,
    Name,
    Number,
    Operation,
    Region,
    Stmt,
    Value,
    Variable,
)
from perfkit.ir.expr import FUNCTIONS
from perfkit.ir.scop import Scop
from perfkit.runtime.signature import Parameter, Signature

_HERE = Location("<program>", 1)
_INT = "int64"
_OPERATORS = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div",
              ast.FloorDiv: "floordiv", ast.Mod: "mod"}  # fmt: skip
_COMPARISONS = {ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq",
                ast.NotEq: "ne"}  # fmt: skip
_SYMBOLS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "tdiv": "/", "lt": "<", "le": "<=",
            "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}  # fmt: skip
_C_TYPES = {"float64": "double", "float32": "float"}


@dataclass(frozen=True)
class Program:
    """A program read from its text: what to analyse and how its kernels are called."""

    text: str
    region: Region
    scop: Scop
    signature: Signature


def read(text: str) -> Program:
    """Parse a program and lower it. Raises UnsupportedError for text outside the subset."""
    region = region_of(text)
    scop = build(region)
    written = scop.written
    parameters = []
    for v in region.variables:
        if v.kind == "array":
            shape = tuple(_extent(e) for e in v.shape)
            parameters.append(
                Parameter(v.name, "array", v.dtype, len(shape), shape, v.name in written)
            )
        elif v.kind == "size":
            parameters.append(Parameter(v.name, "size", _INT))
        else:
            parameters.append(Parameter(v.name, "scalar", v.dtype))
    signature = Signature(region.name, tuple(parameters), scop.parameters)
    return Program(text, region, scop, signature)


def _extent(value: Value) -> str | int:
    if isinstance(value, Name):
        return value.name
    if isinstance(value, Number):
        return int(value.value)
    raise UnsupportedError(_HERE, "extent", "is neither a size nor a constant")


def region_of(text: str) -> Region:
    """The parsed function, not lowered yet."""
    try:
        body = ast.parse(text).body
    except SyntaxError as error:
        where = Location("<program>", error.lineno or 1)
        raise UnsupportedError(where, "text", str(error)) from None
    if len(body) != 1 or not isinstance(body[0], ast.FunctionDef):
        raise UnsupportedError(_HERE, "text", "is not one function")
    return _Reader(body[0]).region()


class _Reader:
    def __init__(self, function: ast.FunctionDef) -> None:
        self.function = function
        self.dtype = "float64"
        self.variables: dict[str, Variable] = {}
        self.locals: dict[str, str] = {}
        for argument in function.args.args:
            self.variables[argument.arg] = self._variable(argument)
        floats = [v.dtype for v in self.variables.values() if v.kind != "size"]
        if len(set(floats)) > 1:
            raise UnsupportedError(_HERE, function.name, "mixes element types")
        self.dtype = floats[0] if floats else self.dtype

    def _variable(self, argument: ast.arg) -> Variable:
        note = argument.annotation
        if note is None:
            return Variable(argument.arg, "size", _INT)
        text = note.value if isinstance(note, ast.Constant) else ""
        found = re.fullmatch(r"(float32|float64)(?:\[([\w, ]+)\])?", str(text))
        if not found:
            raise UnsupportedError(_HERE, argument.arg, f"has the unknown type {text!r}")
        if found[2] is None:
            return Variable(argument.arg, "scalar", found[1])
        shape = tuple(
            Number(_INT, int(e)) if e.isdigit() else Name(_INT, e)
            for e in found[2].replace(" ", "").split(",")
        )
        return Variable(argument.arg, "array", found[1], shape)

    def region(self) -> Region:
        body = self.block(self.function.body)
        declared = tuple(Declare(n, d, (), _HERE) for n, d in self.locals.items())
        return Region(
            self.function.name, tuple(self.variables.values()), (*declared, *body), _HERE
        )

    def block(self, body: list[ast.stmt]) -> tuple[Stmt, ...]:
        return tuple(self.statement(s) for s in body)

    def statement(self, s: ast.stmt) -> Stmt:
        where = Location("<program>", s.lineno)
        match s:
            case ast.For(
                target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=args)
            ):
                values = [self.value(a) for a in args]
                first = values[0] if len(values) > 1 else Number(_INT, 0)
                end = values[1] if len(values) > 1 else values[0]
                step = int(ast.literal_eval(args[2])) if len(args) > 2 else 1
                op = "sub" if step > 0 else "add"
                last = Operation(_INT, op, (end, Number(_INT, 1)))
                return For(name, first, last, step, self.block(s.body), where)
            case ast.If():
                then, otherwise = self.block(s.body), self.block(s.orelse)
                return If(self.value(s.test), then, otherwise, where)
            case ast.Assign(targets=[target], value=value):
                return Assign(self.target(target), self.value(value), where, ast.unparse(s))
            case ast.AugAssign(target=target, op=op, value=value):
                place = self.target(target)
                update = Operation(
                    self.dtype, _OPERATORS[type(op)], (place, self.value(value))
                )
                return Assign(place, update, where, ast.unparse(s))
        raise UnsupportedError(where, ast.unparse(s), "is not in the language of programs")

    def target(self, node: ast.expr) -> Name | Element:
        if isinstance(node, ast.Name):
            self.locals.setdefault(node.id, self.dtype)
        found = self.value(node)
        assert isinstance(found, Name | Element)
        return found

    def value(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=int() as number):
                return Number(_INT, number)
            case ast.Constant(value=float() as number):
                return Number(self.dtype, number)
            case ast.Name(id=name):
                known = self.variables.get(name)
                dtype = known.dtype if known else self.locals.get(name, _INT)
                return Name(dtype, name)
            case ast.Subscript(value=ast.Name(id=name), slice=index):
                parts = index.elts if isinstance(index, ast.Tuple) else [index]
                return Element(self.dtype, name, tuple(self.value(p) for p in parts))
            case ast.BinOp(left=left, op=op, right=right):
                a, b = self.value(left), self.value(right)
                return Operation(a.dtype, _OPERATORS[type(op)], (a, b))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                a = self.value(operand)
                return Operation(a.dtype, "neg", (a,))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return Operation(
                    "bool", _COMPARISONS[type(op)], (self.value(left), self.value(right))
                )
            case ast.Call(func=ast.Name(id="min" | "max" as name), args=[left, right]):
                a = self.value(left)
                return Operation(a.dtype, name, (a, self.value(right)))
            case ast.Call(func=ast.Name(id=name), args=args) if name in FUNCTIONS:
                values = tuple(self.value(a) for a in args)
                return Operation(self.dtype, "call", values, name)
        raise UnsupportedError(
            Location("<program>", node.lineno), ast.unparse(node), "is not in the language"
        )


# -- C ---------------------------------------------------------------------------------------


def to_c(text: str) -> str:
    """The program as a C file with a ``#pragma scop`` region."""
    region = region_of(text)
    formals = []
    for v in region.variables:
        if v.kind == "size":
            formals.append(f"int {v.name}")
        else:
            formals.append(
                f"{_C_TYPES[v.dtype]} {v.name}" + "".join(f"[{_c(e)}]" for e in v.shape)
            )
    lines = ["#include <math.h>", "", f"void {region.name}({', '.join(formals)})", "{"]
    body = list(region.body)
    while body and isinstance(body[0], Declare):
        lines.append(f"  {_C_TYPES[body[0].dtype]} {body[0].name};")
        body = body[1:]
    lines += ["#pragma scop", *_lines(tuple(body), 1), "#pragma endscop", "}", ""]
    return "\n".join(lines)


def _lines(body: tuple[Stmt, ...], depth: int) -> list[str]:
    pad = "  " * depth
    found: list[str] = []
    for s in body:
        match s:
            case For(variable=v, first=first, last=last, step=step):
                test, move = ("<=", f"{v} += {step}") if step > 0 else (">=", f"{v} -= {-step}")
                found.append(f"{pad}for (int {v} = {_c(first)}; {v} {test} {_c(last)}; {move}) {{")
                found += [*_lines(s.body, depth + 1), f"{pad}}}"]
            case If(condition=condition, then=then, otherwise=otherwise):
                found += [f"{pad}if ({_c(condition)}) {{", *_lines(then, depth + 1)]
                if otherwise:
                    found += [f"{pad}}} else {{", *_lines(otherwise, depth + 1)]
                found.append(f"{pad}}}")
            case Assign(target=target, value=value):
                found.append(f"{pad}{_c(target)} = {_c(value)};")
    return found


def _c(value: Value) -> str:
    match value:
        case Number(dtype=dtype, value=number):
            return f"{number!r}f" if dtype == "float32" else repr(number)
        case Name(name=name):
            return name
        case Element(array=array, indices=indices):
            return array + "".join(f"[{_c(i)}]" for i in indices)
        case Operation(op="neg", args=(a,)):
            return f"(-{_c(a)})"
        case Operation(op="min" | "max" as op, args=(a, b)):
            sign = "<" if op == "min" else ">"
            return f"({_c(a)} {sign} {_c(b)} ? {_c(a)} : {_c(b)})"
        case Operation(op="floordiv", args=(a, b)):  # of sizes and iterators, never negative
            return f"({_c(a)} / {_c(b)})"
        case Operation(op="mod", args=(a, b)):
            return f"({_c(a)} % {_c(b)})"
        case Operation(op="call", args=args, function=function, dtype=dtype):
            name = function + "f" * (dtype == "float32")
            return f"{name}({', '.join(map(_c, args))})"
        case Operation(op=op, args=(a, b)):
            return f"({_c(a)} {_SYMBOLS[op]} {_c(b)})"
    raise UnsupportedError(_HERE, type(value).__name__, "has no C form")


__all__ = ["Program", "read", "region_of", "to_c"]
