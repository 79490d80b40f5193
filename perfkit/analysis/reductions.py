"""Recognising reductions: statements whose updates of an element commute.

``A[f] = A[f] op rest`` is a reduction when ``op`` is associative and commutative on the dtype and
``rest`` does not read the element that the instance updates. Sums, products and bit operations of
integers wrap, so any order of theirs gives the same bits; floats are reduced only where the user
allowed ``fp="reassociate"``, minima and maxima included (NaN and signed zeros depend on the order).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from perfkit.ir.expr import (
    FLOATS,
    ITEMSIZE,
    Access,
    Binary,
    Call,
    Cast,
    Compare,
    Expr,
    Load,
    Select,
    Unary,
    loads,
)
from perfkit.ir.isl import Polyhedra
from perfkit.ir.scop import Scop, Statement

_CLASS = {
    "add": "add", "sub": "add", "mul": "mul", "min": "min", "max": "max",
    "and": "and", "or": "or", "xor": "xor", "land": "and", "lor": "or",
}  # fmt: skip
_CALLS = {"fmin": "min", "fmax": "max"}


@dataclass(frozen=True, slots=True)
class Reduction:
    """``statement`` combines ``rest`` into ``array`` with ``op``.

    ``op`` is "add", "mul", "min", "max", "and", "or" or "xor"; ``A = A - x`` is an "add".
    ``rest`` holds the operands besides the updated element (a subtrahend keeps no sign).
    """

    statement: str
    array: str
    op: str
    rest: tuple[Expr, ...]

    @property
    def other_reads(self) -> tuple[Access, ...]:
        return tuple(a for e in self.rest for a in loads(e))


def _operands(expr: Expr) -> tuple[str, tuple[Expr, ...], tuple[int, ...]] | None:
    """The class of the operation, its operands, and which of them may be the updated element."""
    match expr:
        case Binary(op="sub", left=left, right=right):
            return "add", (left, right), (0,)
        case Binary(op=op, left=left, right=right) if op in _CLASS:
            return _CLASS[op], (left, right), (0, 1)
        case Call(function=function, args=args) if function in _CALLS:
            return _CALLS[function], args, (0, 1)
        case Select(condition=Compare(op=op, left=left, right=right), if_true=a, if_false=b):
            # a < b ? a : b and its mirror images
            if op not in ("lt", "le", "gt", "ge") or {a, b} != {left, right} or a == b:
                return None
            takes_smaller = (a == left) == (op in ("lt", "le"))
            return ("min" if takes_smaller else "max"), (a, b), (0, 1)
        case _:
            return None


def _find(
    expr: Expr, write: Access, op: str | None, dtype: str
) -> tuple[str, tuple[Expr, ...]] | None:
    """Follow a chain of one operation down to the load of the updated element."""
    floating = dtype in FLOATS
    if (expr.dtype in FLOATS) != floating:
        return None
    if isinstance(expr, Load):
        return (op, ()) if op and expr.access == write else None
    if isinstance(expr, Cast):
        # Wrapping sums, products and bit operations commute with dropping high bits; minima do not.
        wide = floating or ITEMSIZE[expr.dtype] >= ITEMSIZE[dtype]
        if not wide or "bool" in (expr.dtype, expr.arg.dtype) or op in ("min", "max"):
            return None
        found = _find(expr.arg, write, op, dtype)
        return None if found and found[0] in ("min", "max") else found
    if isinstance(expr, Unary):
        return None
    operands = _operands(expr)
    if operands is None or (op is not None and operands[0] != op):
        return None
    kind, args, places = operands
    for place in places:
        found = _find(args[place], write, kind, dtype)
        if found is not None:
            rest = tuple(a for k, a in enumerate(args) if k != place)
            return found[0], (*found[1], *rest)
    return None


def combined(expr: Expr, access: Access, dtype: str) -> tuple[str, tuple[Expr, ...]] | None:
    """``expr`` as ``access op rest`` with an associative, commutative ``op``; None if it is not."""
    return _find(expr, access, None, dtype)


def recognise(scop: Scop, statement: Statement, fp: str) -> Reduction | None:
    """The reduction that a statement performs by its form, elements not yet compared."""
    dtype = scop.array(statement.write.array).dtype
    if dtype in FLOATS and fp != "reassociate":
        return None
    found = combined(statement.value, statement.write, dtype)
    if found is None:
        return None
    return Reduction(statement.name, statement.write.array, *found)


def chained(scop: Scop, found: Mapping[str, Reduction]) -> Scop:
    """Sums of products added one at a time: ``A + (b + c)`` becomes ``(A + b) + c``.

    Each product then costs one fused multiply-add. Only for statements that are reductions, whose
    order may change.
    """

    def chain(expr: Expr) -> Expr:
        match expr:
            case Binary(op="add", right=Binary(op="add", left=b, right=c) as right):
                if right.dtype == expr.dtype:
                    return chain(replace(expr, left=chain(replace(expr, right=b)), right=c))
        return expr

    statements = (
        replace(s, value=chain(s.value)) if found.get(s.name, _NONE).op == "add" else s
        for s in scop.statements
    )
    return replace(scop, statements=tuple(statements))


_NONE = Reduction("", "", "", ())


def neutral_of(op: str, dtype: str) -> int | float:
    """The value that ``op`` leaves every other as it is."""
    if op in ("add", "mul"):
        return int(op == "mul")
    if dtype in FLOATS:
        return math.inf if op == "min" else -math.inf
    signed = not dtype.startswith("u")
    bits = 8 * ITEMSIZE[dtype] - signed
    if op == "min":
        return int(2**bits - 1)
    return -int(2**bits) if signed else 0


def reductions(polyhedra: Polyhedra, fp: str) -> dict[str, Reduction]:
    """The reductions of a SCoP by statement name.

    A statement whose other operands may read the very element that the same instance updates is
    left out; reads of other elements of the array are ordinary accesses.
    """
    scop = polyhedra.scop
    result: dict[str, Reduction] = {}
    for statement in scop.statements:
        reduction = recognise(scop, statement, fp)
        if reduction is None:
            continue
        own = polyhedra.writes[statement.name]
        if all(
            own.intersect(polyhedra.access_map(statement, a)).is_empty()
            for a in reduction.other_reads
            if a.array == reduction.array
        ):
            result[statement.name] = reduction
    return result


__all__ = ["Reduction", "chained", "combined", "neutral_of", "recognise", "reductions"]
