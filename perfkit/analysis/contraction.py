"""How little storage a variable of the region needs under a schedule.

Expansion gives every iteration its own element, so that any order is legal. Once the order is
chosen, most of these elements are dead most of the time: where all values live within one iteration
of a loop, the storage can be declared inside that loop, and a dimension whose index is fixed there
disappears (Lefebvre and Feautrier, "Automatic storage management for parallel programs", 1998).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile

import islpy as isl

from perfkit.analysis.dependences import Dependence
from perfkit.ir.expr import Access
from perfkit.ir.isl import Polyhedra, budget_errors
from perfkit.ir.scop import Array, Statement
from perfkit.ir.tree import Loop, Node, enclosing


@dataclass(frozen=True, slots=True)
class Contraction:
    """``array`` can be declared in the body of ``loop`` ("" for the region as a whole).

    ``kept`` are the dimensions that it still needs there; with none left it is one C variable. All
    its writes and reads are below ``loop``, and no value crosses from one iteration to another.
    """

    array: str
    loop: str
    kept: tuple[int, ...]

    @property
    def is_scalar(self) -> bool:
        return not self.kept


def contractions(
    poly: Polyhedra, tree: Node, flows: Iterable[Dependence]
) -> Mapping[str, Contraction]:
    """For every local array of ``poly.scop``, the least storage that ``tree`` leaves possible.

    ``flows`` are the value-based flows of the SCoP (``Analysis.flows``). Arrays for which nothing
    can be gained are reported too, with ``loop == ""`` and every dimension kept.
    """
    by_array: dict[str, list[Dependence]] = {}
    for flow in flows:
        by_array.setdefault(flow.array, []).append(flow)
    with budget_errors():
        poly.renew_budget()
        return {
            a.name: _contract(poly, tree, a, by_array.get(a.name, []))
            for a in poly.scop.arrays
            if a.local
        }


def _contract(poly: Polyhedra, tree: Node, array: Array, flows: list[Dependence]) -> Contraction:
    accesses = [
        (s, access)
        for s in poly.scop.statements
        for access in dict.fromkeys((s.write, *s.reads))
        if access.array == array.name
    ]
    every = tuple(range(array.rank))
    if not accesses:
        return Contraction(array.name, "", every)
    inside: list[Loop] = []
    for level in zip(*(enclosing(tree, s.name) for s, _ in accesses), strict=False):
        loop = level[0]
        if any(other.name != loop.name for other in level):
            break
        if not all(_same_iteration(poly, flow, loop) for flow in flows):
            break
        inside.append(loop)
    kept = tuple(d for d in every if not _fixed(poly, inside, accesses, d)) if inside else every
    if kept:
        # Jammed copies and lanes run at the same time: one buffer cannot serve them all.
        inside = list(takewhile(lambda x: not (x.mark("jam") or x.mark("vector")), inside))
        kept = tuple(d for d in every if not _fixed(poly, inside, accesses, d)) if inside else every
    return Contraction(array.name, inside[-1].name if inside else "", kept)


def _same_iteration(poly: Polyhedra, flow: Dependence, loop: Loop) -> bool:
    first = _values(poly, poly.scop.statement(flow.source), [loop])
    second = _values(poly, poly.scop.statement(flow.target), [loop])
    return flow.relation.is_subset(first.apply_range(second.reverse()))


def _fixed(
    poly: Polyhedra, inside: list[Loop], accesses: list[tuple[Statement, Access]], dim: int
) -> bool:
    """Does one iteration of the loops use only one index in this dimension?"""
    relation = None
    for statement, access in accesses:
        index = poly.map(f"{{ {_tuple(statement)} -> [{access.indices[dim]}] }}").intersect_domain(
            poly.domains[statement.name]
        )
        part = _values(poly, statement, inside).reverse().apply_range(index)
        relation = part if relation is None else relation.union(part)
    return relation is not None and relation.is_single_valued()


def _values(poly: Polyhedra, statement: Statement, loops: list[Loop]) -> isl.Map:
    values = ", ".join(str(loop.expression(statement.name)) for loop in loops)
    text = f"{{ {_tuple(statement)} -> [{values}] }}"
    return poly.map(text).intersect_domain(poly.domains[statement.name])


def _tuple(statement: Statement) -> str:
    return f"{statement.name}[{', '.join(statement.iterators)}]"


__all__ = ["Contraction", "contractions"]
