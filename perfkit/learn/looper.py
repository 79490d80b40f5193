"""The baseline: what LOOPer's cost model sees of a schedule (M. Merouani et al., arXiv 2403.11522).

Per computation a vector of raw magnitudes (bounds, access matrices), the transformed loops as a
sequence in place of its transform tags, and the expression as a sequence of operations; and the
tree of loops, each with a vector. As there, magnitudes are not put on a logarithmic scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from perfkit.ir.affine import Affine
from perfkit.ir.expr import Access, Binary, Call, Const, Load, Unary, walk
from perfkit.ir.scop import Scop, Statement
from perfkit.ir.tree import Leaf, Loop, Node, Sequence, enclosing, statements

Array = np.ndarray[Any, Any]

DEPTH = 5
"""Iterators with columns of their own."""

RANK = 4
READS = 15
TAG = DEPTH + 1 + 6
OPERATIONS = ("add", "sub", "mul", "div", "min", "max", "neg", "call", "const", "load", "rest")
COMPUTATION = 3 * DEPTH + (READS + 1) * (RANK * (DEPTH + 1) + 1) + 2
LOOP = 7


@dataclass(frozen=True)
class Looped:
    """A schedule for the baseline.

    Attributes:
        computations: float32 [statements, COMPUTATION].
        tags: per statement float32 [loops around it, TAG].
        expressions: per statement int64 [operations].
        loops: float32 [loops, LOOP].
        children: per loop and, last, for the root: (is a loop, number) in textual order.
    """

    computations: Array
    tags: tuple[Array, ...]
    expressions: tuple[Array, ...]
    loops: Array
    children: tuple[tuple[tuple[bool, int], ...], ...]


def looped(scop: Scop, tree: Node, sizes: Mapping[str, int]) -> Looped:
    """The baseline's view of a schedule at given sizes."""
    order = statements(tree)
    known = scop.by_name()
    numbers = {a.name: float(k + 1) for k, a in enumerate(scop.arrays)}
    computations = [_computation(known[n], numbers, sizes) for n in order]
    tags = tuple(
        np.asarray([_tag(loop, known[n], sizes) for loop in enclosing(tree, n)], np.float32)
        .reshape(-1, TAG)
        for n in order
    )  # fmt: skip
    expressions = tuple(np.asarray(_operations(known[n]), np.int64) for n in order)
    rows: list[list[float]] = []
    children: list[tuple[tuple[bool, int], ...]] = []
    place = {n: k for k, n in enumerate(order)}

    def visit(node: Node) -> tuple[tuple[bool, int], ...]:
        match node:
            case Leaf(statement=name):
                return ((False, place[name]),)
            case Sequence(children=parts):
                return tuple(c for p in parts for c in visit(p))
            case Loop():
                inside = visit(node.body)
                rows.append(_loop(node))
                children.append(inside)
                return ((True, len(rows) - 1),)

    root = visit(tree)
    return Looped(
        np.asarray(computations, np.float32), tags, expressions,
        np.asarray(rows, np.float32).reshape(-1, LOOP), (*children, root),
    )  # fmt: skip


def _row(expr: Affine, names: tuple[str, ...], sizes: Mapping[str, int]) -> list[float]:
    """Coefficients of the iterators and the constant, sizes filled in."""
    rest = Affine(tuple((n, c) for n, c in expr.terms if n not in names), expr.const)
    found = [float(expr.coefficient(n)) for n in names[:DEPTH]]
    return [*found, *[0.0] * (DEPTH - len(found)), float(rest.evaluate(sizes))]


def _tag(loop: Loop, statement: Statement, sizes: Mapping[str, int]) -> list[float]:
    expr, tile = loop.expression(statement.name), 1
    while not expr.terms and len(expr.divs) == 1:
        tile *= expr.divs[0][0].divisor
        expr = expr.divs[0][0].inner
    marks = {m.kind: float(m.factor) for m in loop.marks}
    return [
        *_row(expr, statement.iterators, sizes), float(tile > 1), float(tile),
        float("parallel" in marks), marks.get("vector", 0.0), marks.get("unroll", 0.0),
        marks.get("jam", 0.0),
    ]  # fmt: skip


def _loop(loop: Loop) -> list[float]:
    marks = {m.kind: float(m.factor) for m in loop.marks}
    expr = loop.schedule[0][1]
    divisor = expr.divs[0][0].divisor if not expr.terms and expr.divs else 0
    return [
        float(divisor > 0), float(divisor), float("parallel" in marks), marks.get("vector", 0.0),
        marks.get("unroll", 0.0), marks.get("jam", 0.0), float(len(loop.schedule)),
    ]  # fmt: skip


def _computation(
    statement: Statement, numbers: Mapping[str, float], sizes: Mapping[str, int]
) -> list[float]:
    names = statement.iterators
    found: list[float] = []
    for k in range(DEPTH):
        found += _bounds(statement, names[k], sizes) if k < len(names) else [0.0, 0.0, 0.0]
    reads = list(dict.fromkeys(statement.reads))[:READS]
    for access in (statement.write, *reads):
        found += _access(access, names, numbers, sizes)
    found += [0.0] * ((READS - len(reads)) * (RANK * (DEPTH + 1) + 1))
    return [*found, float(statement.value.dtype == "float32"), float(len(statement.reads))]


def _access(
    access: Access, names: tuple[str, ...], numbers: Mapping[str, float], sizes: Mapping[str, int]
) -> list[float]:
    found = [numbers[access.array]]
    for k in range(RANK):
        rows = access.indices
        found += _row(rows[k], names, sizes) if k < len(rows) else [0.0] * (DEPTH + 1)
    return found


def _bounds(statement: Statement, name: str, sizes: Mapping[str, int]) -> list[float]:
    """Smallest constant upper bound, largest constant lower bound, and how many bounds vary."""
    low, high, varying = 0.0, float(max(sizes.values(), default=0)), 0.0
    for piece in statement.domain.pieces[:1]:
        for constraint in piece:
            factor = constraint.expr.coefficient(name)
            rest = constraint.expr + Affine.variable(name) * -factor
            if not factor:
                continue
            if rest.names() & set(statement.iterators) or rest.divs:
                varying += 1.0
                continue
            bound = -rest.evaluate(sizes) / factor
            low, high = (max(low, bound), high) if factor > 0 else (low, min(high, bound))
    return [low, high, varying]


def _operations(statement: Statement) -> list[int]:
    found = []
    word: str
    for e in walk(statement.value):
        match e:
            case Binary(op=op) if op in OPERATIONS:
                word = op
            case Unary(op="neg"):
                word = "neg"
            case Call():
                word = "call"
            case Const():
                word = "const"
            case Load():
                word = "load"
            case _:
                word = "rest"
        found.append(OPERATIONS.index(word))
    return found[:64]


__all__ = ["COMPUTATION", "LOOP", "OPERATIONS", "TAG", "Looped", "looped"]
