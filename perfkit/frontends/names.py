"""Questions about statements of the small loop language, before any lowering."""

from __future__ import annotations

from collections.abc import Iterable

from perfkit.frontends.syntax import (
    Assign,
    Block,
    Declare,
    Element,
    For,
    If,
    Name,
    Operation,
    Stmt,
    Value,
)


def sole_assign(body: tuple[Stmt, ...]) -> Assign | None:
    match body:
        case (Assign() as assign,):
            return assign
        case (Block(body=inner),):
            return sole_assign(inner)
        case _:
            return None


def targets_of(body: Iterable[Stmt]) -> frozenset[str]:
    """Names that the statements assign, at any depth."""
    found: set[str] = set()
    for s in body:
        match s:
            case Assign(target=Name(name=name)) | Assign(target=Element(array=name)):
                found.add(name)
            case For() | Block():
                found |= targets_of(s.body)
            case If():
                found |= targets_of(s.then) | targets_of(s.otherwise)
    return frozenset(found)


def declared_in(body: Iterable[Stmt]) -> frozenset[str]:
    found: set[str] = set()
    for s in body:
        match s:
            case Declare(name=name):
                found.add(name)
            case For() | Block():
                found |= declared_in(s.body)
            case If():
                found |= declared_in(s.then) | declared_in(s.otherwise)
    return frozenset(found)


def data_in(value: Value) -> str | None:
    """An array that the value is loaded from, if any: such a value is not affine."""
    match value:
        case Element(array=array):
            return array
        case Operation(args=args):
            return next((found for found in map(data_in, args) if found is not None), None)
        case _:
            return None


def names_in(value: Value) -> frozenset[str]:
    match value:
        case Name(name=name):
            return frozenset((name,))
        case Element(array=array, indices=indices):
            return frozenset((array,)).union(*map(names_in, indices))
        case Operation(args=args):
            return frozenset().union(*map(names_in, args))
        case _:
            return frozenset()
