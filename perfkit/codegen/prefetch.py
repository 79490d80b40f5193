"""Prefetching the results that a register tile will need next.

A jammed loop over rows keeps a tile of results in registers while a sum runs. The next tile's rows
are elsewhere in memory, few elements of each, where no hardware prefetcher looks; asked for before
the sum, they arrive while it runs::

    for (i = 0; i + 5 <= n; i += 6) {       for (i = 0; i + 5 <= n; i += 6) {
      C_1 = C[i][j]; ... C_6 = ...     ->     C_1 = C[i][j]; ... C_6 = ...
      for (k ...) ...                         perfkit_ahead(&C[i][j], &C[i + 1][j], 6, 12);
                                              for (k ...) ...
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from perfkit.codegen.nodes import Ahead, For, Instance, Node, Scope
from perfkit.ir.affine import Affine
from perfkit.ir.expr import Access
from perfkit.ir.scop import Scop

FEWEST = 8
"""Vectors that a tile must load and store; smaller ones end before their successors arrive."""


def prefetch(nodes: tuple[Node, ...], scop: Scop) -> tuple[Node, ...]:
    """Let register tiles inside jammed loops ask for the next tile's results."""
    return tuple(_visit(node, {}, scop) for node in nodes)


def _visit(node: Node, strips: Mapping[str, For], scop: Scop) -> Node:
    """``strips`` are the strip-mined loops around, by name."""
    match node:
        case Instance():
            return node
        case For() if node.width > 1 and not node.descending:
            strips = {**strips, node.name: node}
        case For():
            strips = {n: s for n, s in strips.items() if n != node.name}
        case Scope():
            node = replace(node, ahead=_ahead(node, strips, scop))
    return replace(node, body=tuple(_visit(n, strips, scop) for n in node.body))


def _ahead(scope: Scope, strips: Mapping[str, For], scop: Scop) -> tuple[Ahead, ...]:
    results = [
        r.access for r in scope.registers
        if r.load and r.store and r.lanes is not None and not scop.array(r.access.array).local
    ]  # fmt: skip
    if len(results) < FEWEST:
        return ()
    found: dict[Ahead, None] = {}
    for name, strip in strips.items():
        rows = strip.width
        for first in results:
            copies = [_moved(first, name, k * strip.step) for k in range(rows)]
            contiguous = name in first.indices[-1].names()
            if len(set(copies)) == rows and set(copies) <= set(results) and not contiguous:
                found[Ahead(first, copies[1], rows, 2 * rows)] = None
    return tuple(found)


def _moved(access: Access, name: str, by: int) -> Access:
    return access.substitute({name: Affine.variable(name) + by})


__all__ = ["prefetch"]
