"""A direct interpreter of the small loop language: what a region means, with no polyhedra."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from perfkit.errors import Location
from perfkit.frontends.syntax import (
    Assign,
    Block,
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

HERE = Location("test.c", 1)


def num(value: float, dtype: str = "") -> Number:
    return Number(dtype or ("int64" if isinstance(value, int) else "float64"), value)


def var(name: str, dtype: str = "int64") -> Name:
    return Name(dtype, name)


def op(name: str, *args: Value | int, dtype: str = "int64") -> Operation:
    if name in ("lt", "le", "gt", "ge", "eq", "ne", "land", "lor", "not"):
        dtype = "bool"
    return Operation(dtype, name, tuple(num(a) if isinstance(a, int) else a for a in args))


def at(array: str, *indices: Value | int, dtype: str = "float64") -> Element:
    return Element(dtype, array, tuple(num(i) if isinstance(i, int) else i for i in indices))


def let(target: Name | Element, value: Value, line: int = 1) -> Assign:
    return Assign(target, value, Location("test.c", line))


def loop(name: str, first: Value | int, last: Value | int, *body: Stmt, step: int = 1) -> For:
    first = num(first) if isinstance(first, int) else first
    last = num(last) if isinstance(last, int) else last
    return For(name, first, last, step, body, HERE)


def when(condition: Value, then: Iterable[Stmt], otherwise: Iterable[Stmt] = ()) -> If:
    return If(condition, tuple(then), tuple(otherwise), HERE)


def size(name: str) -> Variable:
    return Variable(name, "size", "int64")


def array(name: str, *shape: Value | int, dtype: str = "float64") -> Variable:
    return Variable(name, "array", dtype, tuple(num(s) if isinstance(s, int) else s for s in shape))


def region(variables: Iterable[Variable], *body: Stmt, **more: Any) -> Region:
    return Region("f", tuple(variables), body, HERE, **more)


def execute(program: Region, values: dict[str, Any]) -> None:
    """Run a region; arrays in ``values`` change in place."""
    _block(program.body, dict(values))


def _block(body: Iterable[Stmt], names: dict[str, Any]) -> None:
    for s in body:
        match s:
            case Declare():
                shape = tuple(int(value_of(e, names)) for e in s.shape)
                names[s.name] = np.zeros(shape, s.dtype) if shape else 0
            case Assign(target=Name(name=name)):
                _assign(names, name, value_of(s.value, names))
            case Assign(target=Element() as target):
                index = tuple(int(value_of(i, names)) for i in target.indices)
                assert all(
                    0 <= k < n for k, n in zip(index, names[target.array].shape, strict=True)
                )
                names[target.array][index] = value_of(s.value, names)
            case Block():
                _scoped(s.body, names)
            case If():
                chosen = s.then if value_of(s.condition, names) else s.otherwise
                _scoped(chosen, names)
            case For():
                last, i = value_of(s.last, names), value_of(s.first, names)
                while (i <= last) if s.step > 0 else (i >= last):
                    _scoped(s.body, names, {s.variable: i})
                    i += s.step


def _scoped(body: Iterable[Stmt], names: dict[str, Any], new: dict[str, Any] | None = None) -> None:
    inner = dict(names) | (new or {})
    local = {s.name for s in body if isinstance(s, Declare)} | set(new or {})
    _block(body, inner)
    for name in names:
        if name not in local:
            names[name] = inner[name]


def _assign(names: dict[str, Any], name: str, value: Any) -> None:
    if isinstance(names[name], np.ndarray):
        names[name][()] = value
    else:
        names[name] = value


def value_of(value: Value, names: dict[str, Any]) -> Any:
    match value:
        case Number():
            return value.value
        case Name(name=name):
            found = names[name]
            return found[()] if isinstance(found, np.ndarray) else found
        case Element():
            index = tuple(int(value_of(i, names)) for i in value.indices)
            _check(index, names[value.array])
            return names[value.array][index]
    assert isinstance(value, Operation)
    first = value_of(value.args[0], names)
    match value.op:
        case "select":
            return value_of(value.args[1 if first else 2], names)
        case "land":
            return bool(first) and bool(value_of(value.args[1], names))
        case "lor":
            return bool(first) or bool(value_of(value.args[1], names))
        case "not":
            return not first
        case "neg":
            return -first
        case "cast":
            return np.dtype(value.dtype).type(first)
    second = value_of(value.args[1], names)
    match value.op:
        case "add":
            return first + second
        case "sub":
            return first - second
        case "mul":
            return first * second
        case "div":
            return first / second
        case "floordiv":
            return first // second
        case "mod":
            return first % second
        case "tdiv":
            return int(abs(first) // abs(second)) * (1 if (first < 0) == (second < 0) else -1)
        case "tmod":
            return abs(first) % abs(second) * (-1 if first < 0 else 1)
        case "min":
            return min(first, second)
        case "max":
            return max(first, second)
    compare = {"lt": "__lt__", "le": "__le__", "gt": "__gt__", "ge": "__ge__"}
    if value.op in compare:
        return getattr(first, compare[value.op])(second)
    return (first == second) == (value.op == "eq")


def _check(index: tuple[int, ...], array: np.ndarray[Any, Any]) -> None:
    assert all(0 <= k < n for k, n in zip(index, array.shape, strict=True))
