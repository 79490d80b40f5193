"""Statements that only move values, which storage transforms put around a region."""

from __future__ import annotations

from collections.abc import Callable

from perfkit.ir.affine import Affine, Constraint, Domain
from perfkit.ir.expr import Access, Load
from perfkit.ir.scop import Array, Scop, Statement
from perfkit.ir.tree import Leaf, Loop, Node, Sequence, loops

Indices = tuple[Affine, ...]


def unused_name(base: str, taken: set[str]) -> str:
    """``base``, or ``base_2``, ``base_3``... whichever is not taken."""
    name, k = base, 2
    while name in taken:
        name, k = f"{base}_{k}", k + 1
    return name


def element_iterators(scop: Scop, array: Array) -> tuple[str, ...]:
    """Names for the indices of an array that clash with nothing in the SCoP."""
    taken = set(scop.parameters) | {a.name for a in scop.arrays}
    found: list[str] = []
    for d in range(array.rank):
        found.append(unused_name(f"x{d}", taken))
        taken.add(found[-1])
    return tuple(found)


def copy_statement(
    scop: Scop,
    array: Array,
    name: str,
    accesses: Callable[[Indices], tuple[Access, Access]],
    domain: Domain | None = None,
) -> Statement:
    """``write = load`` for the elements of ``array``, all of them unless ``domain`` is given.

    ``accesses`` makes the write and the load from the indices of the element.
    """
    iterators = element_iterators(scop, array)
    index = tuple(Affine.variable(i) for i in iterators)
    if domain is None:
        box = tuple(
            c
            for x, extent in zip(index, array.shape, strict=True)
            for c in (Constraint(x), Constraint(extent - x - 1))
        )
        domain = Domain(iterators, (box,))
    write, load = accesses(index)
    return Statement(
        unused_name(name, {s.name for s in scop.statements}),
        domain,
        write,
        Load(array.dtype, load),
        text=f"{write} = {load}",
    )


def _nest(tree: Node, copy: Statement) -> Node:
    """The copy in loops of its own, which write the new elements in their order in memory."""
    taken = {loop.name for loop in loops(tree)}
    body: Node = Leaf(copy.name)
    for expr in reversed(copy.write.indices):
        name = unused_name(str(expr), taken)
        taken.add(name)
        body = Loop(name, ((copy.name, expr),), body)
    return body


def before(tree: Node, copy: Statement) -> Node:
    """The tree that runs a copy first."""
    rest = tree.children if isinstance(tree, Sequence) else (tree,)
    return Sequence((_nest(tree, copy), *rest))


def after(tree: Node, copy: Statement) -> Node:
    """The tree that runs a copy last."""
    rest = tree.children if isinstance(tree, Sequence) else (tree,)
    return Sequence((*rest, _nest(tree, copy)))


__all__ = ["after", "before", "copy_statement", "element_iterators", "unused_name"]
