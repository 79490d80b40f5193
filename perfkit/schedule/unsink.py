"""Taking statements out of loops in which they run at a single point.

A scheduler that fuses puts ``C[i,j] = 0`` at the first iteration of the loop that sums into
``C[i,j]``: good for tiling, bad for everything else, because the loop then holds a test or a peeled
iteration. Where no tile needs it, the statement moves before or after the loop.
"""

from __future__ import annotations

from dataclasses import replace

from perfkit.analysis.dependences import Dependences
from perfkit.ir.affine import Affine
from perfkit.ir.tree import Loop, Node, Sequence, enclosing, find_loop, loops, restrict, statements
from perfkit.schedule import legality
from perfkit.schedule.base import rename_clashes, replace_node, tidy


def unsink(deps: Dependences, tree: Node) -> Node:
    """Move single-point statements out of their loops, where that is legal."""
    iterators = {s.name: frozenset(s.iterators) for s in deps.scop.statements}
    tree = tidy(tree)
    for name in [loop.name for loop in reversed(loops(tree))]:
        for statement, _ in find_loop(tree, name).schedule:
            loop = find_loop(tree, name)
            schedule = dict(loop.schedule)
            if statement not in schedule or len(schedule) == 1:
                continue
            outer = enclosing(tree, statement)
            outer = outer[: [x.name for x in outer].index(name)]
            if not _single(schedule[statement], statement, outer, iterators[statement]):
                continue
            keep = restrict(loop.body, frozenset([statement]))
            rest = restrict(loop.body, frozenset(schedule) - {statement})
            if keep is None or rest is None:
                continue
            smaller = replace(
                loop, schedule=tuple((s, schedule[s]) for s in statements(rest)), body=rest
            )
            for pair in ((keep, smaller), (smaller, keep)):
                trial = replace_node(tree, loop, Sequence(pair))
                if legality.is_legal(deps, trial):
                    tree = trial
                    break
    return rename_clashes(tree, frozenset())  # a loop may have become several


def _single(
    value: Affine, statement: str, outer: tuple[Loop, ...], iterators: frozenset[str]
) -> bool:
    """Is the loop's value fixed for the statement once the outer loops are?"""
    fixed: set[str] = set()
    for loop in outer:
        names = loop.expression(statement).names() & iterators
        if len(names - fixed) == 1 and loop.expression(statement).is_linear:
            fixed |= names
    return not (value.names() & iterators) - fixed


__all__ = ["unsink"]
