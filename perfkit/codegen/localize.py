"""Temporaries that live within one iteration become C variables in the body of its loop.

Expansion gave them an element per iteration so that any order was legal; under the chosen order
:mod:`perfkit.analysis.contraction` proves where a single variable is enough. Copies made by
jamming, and SIMD lanes, get a variable each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count

from perfkit.codegen.nodes import For, Instance, Let, Node, Register, Scope, instances, walk
from perfkit.codegen.promote import Place, place_of
from perfkit.ir.scop import Scop


def localize(
    nodes: tuple[Node, ...], scop: Scop, loop_of: Mapping[str, str]
) -> tuple[tuple[Node, ...], frozenset[str]]:
    """Declare each array of ``loop_of`` inside its loop; returns those that were declared.

    An array stays in memory when some copy indexes it with a variable that only exists inside the
    loop (the ragged edges of a jammed triangle do).
    """
    inside = [n for top in nodes for n in walk(top) if isinstance(n, For)]
    chosen = {
        array: loop
        for array, loop in loop_of.items()
        if all(_fixed(scop, node, array) for node in inside if node.name == loop)
        and all(
            any(i in instances((node,)) for node in inside if node.name == loop)
            for i in instances(nodes)
            if array in _arrays(scop, i)
        )
    }
    numbers = count(1)

    def visit(node: Node) -> Node:
        if isinstance(node, Instance):
            return node
        body = tuple(map(visit, node.body))
        if isinstance(node, For):
            wanted = sorted(a for a, loop in chosen.items() if loop == node.name)
            registers = tuple(
                Register(
                    f"{array}_{next(numbers)}", place.access, scop.array(array).dtype, place.lanes,
                    load=False, store=False,
                )
                for array in wanted
                for place in _places(scop, node, array)
            )  # fmt: skip
            if registers:
                body = (Scope(registers, body),)
        return replace(node, body=body)

    return tuple(map(visit, nodes)), frozenset(chosen)


def _arrays(scop: Scop, instance: Instance) -> set[str]:
    statement = scop.statement(instance.statement)
    return {statement.write.array, *(a.array for a in statement.reads)}


def _places(scop: Scop, loop: For, array: str) -> tuple[Place, ...]:
    found: dict[Place, None] = {}
    for instance in instances(loop.body):
        statement = scop.statement(instance.statement)
        for access in (statement.write, *statement.reads):
            if access.array == array:
                found[place_of(access, instance, statement)] = None
    return tuple(found)


def _fixed(scop: Scop, loop: For, array: str) -> bool:
    """Whether every copy names its element with variables known at the top of the body."""
    declared = {
        n.name for child in loop.body for n in walk(child) if isinstance(n, For | Let)
    } - {loop.name}
    places = _places(scop, loop, array)
    used = {name for p in places for i in p.access.indices for name in i.names()}
    if used & declared:
        return False
    # One element must not be a lane of one copy and a scalar of another.
    return len({p.lanes for p in places}) <= 1


__all__ = ["localize"]
