"""Legality by enumeration, without isl: every conflicting pair of a SCoP at small sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from perfkit.analysis.reductions import recognise
from perfkit.ir.affine import Affine, Domain
from perfkit.ir.expr import Access
from perfkit.ir.scop import Scop, Statement
from perfkit.ir.tree import Leaf, Loop, Node, Sequence, loops, padded_vectors

Array = np.ndarray[Any, Any]
MAX_PAIRS = 400_000


class TooLarge(Exception):
    """More instances or pairs than a quick enumeration should meet."""


def evaluate(
    expr: Affine, iterators: tuple[str, ...], rows: Array, sizes: Mapping[str, int]
) -> Array:
    """The expression at every row of iterator values."""
    total = np.full(len(rows), expr.const, dtype=np.int64)
    for name, c in expr.terms:
        total += c * (rows[:, iterators.index(name)] if name in iterators else sizes[name])
    for div, c in expr.divs:
        total += c * np.floor_divide(evaluate(div.inner, iterators, rows, sizes), div.divisor)
    return total


def points(domain: Domain, sizes: Mapping[str, int]) -> Array:
    """The points of a domain whose iterators stay within -3 and the largest size + 4.

    Copies of arrays have one or two iterators, which go up to the arrays' extents (3 n + 8).
    """
    depth = len(domain.iterators)
    largest = max(sizes.values(), default=0)
    span = np.arange(-3, 3 * largest + 9 if depth <= 2 else largest + 5)
    if len(span) ** depth > 400_000:
        raise TooLarge
    grid = np.meshgrid(*([span] * depth), indexing="ij")
    rows = np.stack([g.ravel() for g in grid], axis=1) if depth else np.zeros((1, 0), np.int64)
    keep = np.zeros(len(rows), dtype=bool)
    for piece in domain.pieces:
        inside = np.ones(len(rows), dtype=bool)
        for c in piece:
            value = evaluate(c.expr, domain.iterators, rows, sizes)
            inside &= value >= 0 if c.kind == "ge" else value == 0
        keep |= inside
    return rows[keep]


@dataclass(frozen=True)
class _Levels:
    """Schedule vectors of all instances as one matrix, and per statement the loop of a column."""

    matrix: Array
    loops: dict[str, tuple[Loop | None, ...]]


class Brute:
    """The instances of ``scop`` at ``sizes`` and every ordered conflicting pair of them."""

    def __init__(self, scop: Scop, sizes: Mapping[str, int], fp: str = "strict") -> None:
        self.scop, self.sizes = scop, dict(sizes)
        self.rows = {s.name: points(s.domain, sizes) for s in scop.statements}
        self.first: dict[str, int] = {}
        total = 0
        for s in scop.statements:
            self.first[s.name] = total
            total += len(self.rows[s.name])
        self.count = total
        self.owner = np.repeat(
            np.arange(len(scop.statements)), [len(self.rows[s.name]) for s in scop.statements]
        )
        self.source, self.target, self.relaxed = self._pairs(fp)

    def _accesses(self, fp: str) -> Array:
        """Rows ``instance, is a write, update class or -1, array, indices...`` of all accesses."""
        scop = self.scop
        width = max((a.rank for a in scop.arrays), default=0)
        ids = {a.name: k for k, a in enumerate(scop.arrays)}
        ops: dict[str, int] = {}
        blocks = []
        for s in scop.statements:
            rows = self.rows[s.name]
            reduction = recognise(scop, s, fp)
            if reduction is not None and self._meets(s.write, reduction.other_reads, s):
                reduction = None
            for write, access in [(1, s.write), *((0, a) for a in dict.fromkeys(s.reads))]:
                block = np.zeros((len(rows), 4 + width), dtype=np.int64)
                block[:, 0] = self.first[s.name] + np.arange(len(rows))
                block[:, 1] = write
                updates = reduction is not None and access == s.write
                block[:, 2] = ops.setdefault(reduction.op, len(ops)) if updates else -1
                block[:, 3] = ids[access.array]
                for d, index in enumerate(access.indices):
                    block[:, 4 + d] = evaluate(index, s.iterators, rows, self.sizes)
                blocks.append(block)
        return np.concatenate(blocks) if blocks else np.zeros((0, 4), np.int64)

    def _meets(self, write: Access, others: tuple[Access, ...], s: Statement) -> bool:
        """Does an instance read the element that it writes through another operand too?"""
        rows = self.rows[s.name]

        def element(access: Access) -> Array:
            columns = [evaluate(i, s.iterators, rows, self.sizes) for i in access.indices]
            return np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0))

        mine = element(write)
        return any(
            bool((element(a) == mine).all(axis=1).any()) for a in others if a.array == write.array
        )

    def _pairs(self, fp: str) -> tuple[Array, Array, Array]:
        accesses = self._accesses(fp)
        rank = self.ranks(self.scop.tree)
        element = np.zeros(len(accesses), dtype=np.int64)
        for column in accesses[:, 3:].T:
            low = column.min(initial=0)
            element = element * (int(column.max(initial=0) - low) + 1) + (column - low)
        order = np.lexsort((rank[accesses[:, 0]], element))
        accesses, element = accesses[order], element[order]
        cuts = np.flatnonzero(np.diff(element)) + 1
        found: list[Array] = []
        total = 0
        for group in np.split(accesses, cuts) if len(accesses) else []:
            if not group[:, 1].any():
                continue
            total += len(group) ** 2 // 2
            if total > MAX_PAIRS:
                raise TooLarge
            a, b = np.triu_indices(len(group), 1)
            keep = (group[a, 1] | group[b, 1]).astype(bool) & (group[a, 0] != group[b, 0])
            a, b = a[keep], b[keep]
            relaxed = (group[a, 2] >= 0) & (group[a, 2] == group[b, 2])
            found.append(((group[a, 0] * self.count) + group[b, 0]) * 2 + relaxed)
        codes = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
        pairs = codes // 2
        count = max(1, self.count)
        return pairs // count, pairs % count, codes % 2 == 1

    # -- questions ---------------------------------------------------------------------------

    def levels(self, tree: Node) -> _Levels:
        vectors = padded_vectors(tree)
        columns = []
        for s in self.scop.statements:
            values = [
                evaluate(e, s.iterators, self.rows[s.name], self.sizes) for e in vectors[s.name]
            ]
            depth = len(vectors[s.name])
            columns.append(
                np.stack(values, axis=1) if depth else np.zeros((len(self.rows[s.name]), 0))
            )
        return _Levels(np.concatenate(columns), _loops_by_level(tree))

    def ranks(self, tree: Node) -> Array:
        """The position of every instance in the sequential order of a tree."""
        matrix = self.levels(tree).matrix
        order = np.lexsort(matrix.T[::-1]) if matrix.shape[1] else np.arange(self.count)
        rank = np.empty(self.count, dtype=np.int64)
        rank[order] = np.arange(self.count)
        return rank

    def instance(self, k: int) -> str:
        s = self.scop.statements[self.owner[k]]
        values = self.rows[s.name][k - self.first[s.name]]
        return f"{s.name}[{', '.join(map(str, values))}]"

    def order_violation(self, tree: Node) -> str | None:
        """A conflicting pair that the tree's order reverses; reduction pairs are free."""
        rank = self.ranks(tree)
        wrong = ~self.relaxed & (rank[self.source] >= rank[self.target])
        return self._describe(wrong, "order")

    def mark_violation(self, tree: Node, parallel_reductions: bool = False) -> str | None:
        """A conflicting pair that a mark of the tree makes concurrent, or jamming reverses."""
        marked = {m.kind for loop in loops(tree) for m in loop.marks}
        if not marked & {"parallel", "vector", "jam"}:
            return None
        levels = self.levels(tree)
        names = [s.name for s in self.scop.statements]
        wrong = np.zeros(len(self.source), dtype=bool)
        delta = levels.matrix[self.target] - levels.matrix[self.source]
        for a, b in product(range(len(names)), repeat=2):
            here = np.flatnonzero((self.owner[self.source] == a) & (self.owner[self.target] == b))
            if not len(here):
                continue
            alive = np.ones(len(here), dtype=bool)
            jammed = False
            first, second = levels.loops[names[a]], levels.loops[names[b]]
            for level in range(levels.matrix.shape[1]):
                d = delta[here, level]
                loop = first[level]
                same = loop is not None and second[level] is loop
                kinds = {m.kind: m.factor for m in loop.marks} if same and loop else {}
                relaxed = self.relaxed[here]
                if "parallel" in kinds:
                    wrong[here] |= alive & (d != 0) & ~(relaxed & parallel_reductions)
                if "vector" in kinds:
                    wrong[here] |= alive & (d != 0) & ~relaxed
                if jammed:
                    wrong[here] |= alive & (d < 0) & ~relaxed
                if "jam" in kinds:
                    jammed = True  # chunks of any stride and start: any two values may meet
                else:
                    alive &= d == 0
        return self._describe(wrong, "mark")

    def violation(self, tree: Node, parallel_reductions: bool = False) -> str | None:
        return self.order_violation(tree) or self.mark_violation(tree, parallel_reductions)

    def _describe(self, wrong: Array, what: str) -> str | None:
        found = np.flatnonzero(wrong)
        if not len(found):
            return None
        k = found[0]
        pair = f"{self.instance(self.source[k])} -> {self.instance(self.target[k])}"
        return f"{what}: {pair} at {self.sizes}"


def _loops_by_level(tree: Node) -> dict[str, tuple[Loop | None, ...]]:
    """Per statement, the loop of every column of the padded vectors (None: a position)."""

    def visit(node: Node) -> dict[str, tuple[Loop | None, ...]]:
        match node:
            case Leaf(statement=name):
                return {name: ()}
            case Loop(body=body):
                return {s: (node, *rest) for s, rest in visit(body).items()}
            case Sequence(children=children):
                return {s: (None, *rest) for c in children for s, rest in visit(c).items()}

    found = visit(tree)
    depth = max(map(len, found.values()), default=0)
    return {s: path + (None,) * (depth - len(path)) for s, path in found.items()}


__all__ = ["Brute", "TooLarge"]
