"""Temporaries that live within one iteration become C variables in the body of its loop.

Expansion gave them an element per iteration so that any order was legal; under the chosen order
:mod:`perfkit.analysis.contraction` proves where a single variable is enough. Copies made by
jamming, and SIMD lanes, get a variable each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from perfkit.analysis.contraction import Contraction
from perfkit.codegen.names import Names
from perfkit.codegen.nodes import Buffer, For, Instance, Let, Node, Register, Scope, instances, walk
from perfkit.codegen.promote import Place, place_of
from perfkit.ir.expr import ITEMSIZE, Access, map_accesses
from perfkit.ir.scop import Array, Scop


def localize(
    nodes: tuple[Node, ...], scop: Scop, loop_of: Mapping[str, str], names: Names
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
        and _stays(scop, nodes, array, loop)
    }

    def visit(node: Node) -> Node:
        if isinstance(node, Instance):
            return node
        body = tuple(map(visit, node.body))
        if isinstance(node, For):
            wanted = sorted(a for a, loop in chosen.items() if loop == node.name)
            registers = tuple(
                Register(
                    names.fresh(f"{array}_"), place.access, scop.array(array).dtype, place.lanes,
                    load=False, store=False,
                )
                for array in wanted
                for place in _places(scop, node, array)
            )  # fmt: skip
            if registers:
                body = (Scope(registers, body),)
        return replace(node, body=body)

    return tuple(map(visit, nodes)), frozenset(chosen)


MAX_BUFFER = 1 << 20
"""Bytes of a buffer that may live on a thread's stack."""


def buffered(
    nodes: tuple[Node, ...], scop: Scop, found: Mapping[str, Contraction]
) -> tuple[Scop, Mapping[str, tuple[Array, ...]]]:
    """Shrink the local arrays that one iteration of a loop of ``nodes`` needs only a part of.

    Returns the SCoP with their accesses reduced to the dimensions that are kept, and the new
    arrays by the loop that declares them.
    """
    small: dict[str, tuple[Array, Contraction]] = {}
    for array in scop.arrays:
        contraction = found.get(array.name)
        if contraction is None or not contraction.loop or contraction.is_scalar:
            continue
        shape = tuple(array.shape[d] for d in contraction.kept)
        if not all(e.is_constant for e in shape) or len(shape) == array.rank:
            continue
        if not _stays(scop, nodes, array.name, contraction.loop):
            continue
        if prod(e.const for e in shape) * ITEMSIZE[array.dtype] <= MAX_BUFFER:
            small[array.name] = (replace(array, shape=shape), contraction)

    def change(access: Access) -> Access:
        if access.array not in small:
            return access
        kept = small[access.array][1].kept
        return Access(access.array, tuple(access.indices[d] for d in kept))

    if not small:
        return scop, {}
    declared: dict[str, tuple[Array, ...]] = {}
    for array, contraction in small.values():
        declared[contraction.loop] = (*declared.get(contraction.loop, ()), array)
    reduced = replace(
        scop,
        arrays=tuple(small[a.name][0] if a.name in small else a for a in scop.arrays),
        statements=tuple(
            replace(s, write=change(s.write), value=map_accesses(s.value, change))
            for s in scop.statements
        ),
    )
    return reduced, declared


def declare(node: Node, arrays: Mapping[str, tuple[Array, ...]]) -> Node:
    """Put the buffers of :func:`buffered` into the bodies of their loops."""
    if isinstance(node, Instance):
        return node
    body = tuple(declare(n, arrays) for n in node.body)
    if isinstance(node, For):
        for array in arrays.get(node.name, ()):
            extents = tuple(e.const for e in array.shape)
            body = (Buffer(array.name, array.dtype, extents, body),)
    return replace(node, body=body)


def _stays(scop: Scop, nodes: tuple[Node, ...], array: str, loop: str) -> bool:
    """Whether only bodies of the loop use the array; isl leaves out loops of one iteration."""
    places = [n for top in nodes for n in walk(top) if isinstance(n, For) and n.name == loop]
    covered = {i for place in places for i in instances(place.body)}
    return all(i in covered for i in instances(nodes) if array in _arrays(scop, i))


def _arrays(scop: Scop, instance: Instance) -> set[str]:
    statement = scop.statement(instance.statement)
    return {statement.write.array, *(a.array for a in statement.reads)}


def _places(scop: Scop, loop: For, array: str) -> tuple[Place, ...]:
    found: dict[Place, None] = {}
    for instance in instances(loop.body):
        statement = scop.statement(instance.statement)
        for access in (statement.write, *statement.reads):
            if access.array == array:
                # A partial result over lanes ends up in the one variable of its element.
                found[replace(place_of(access, instance, statement), part=None)] = None
    return tuple(found)


def _fixed(scop: Scop, loop: For, array: str) -> bool:
    """Whether every copy names its element with variables known at the top of the body."""
    declared = {n.name for child in loop.body for n in walk(child) if isinstance(n, For | Let)} - {
        loop.name
    }
    places = _places(scop, loop, array)
    used = {name for p in places for i in p.access.indices for name in i.names()}
    if used & declared:
        return False
    # Under a guard isl may name the same element by another expression (i0 where i1 == i0).
    if not all(_comparable(places[0].access, p.access) for p in places):
        return False
    # One element must not be a lane of one copy and a scalar of another.
    return len({p.lanes for p in places}) <= 1


def _comparable(a: Access, b: Access) -> bool:
    """Whether it shows which copy's element each of them is."""
    return all((i - j).is_constant for i, j in zip(a.indices, b.indices, strict=True))


__all__ = ["MAX_BUFFER", "buffered", "declare", "localize"]
