"""OpenMP constructs on the loop AST: one parallel region with worksharing loops inside.

A region that starts and ends inside a sequential loop would start its threads anew every
iteration; here the outermost sequential loop around parallel ones is run by every thread, with
worksharing loops (whose implied barrier keeps the order) inside it and everything else executed by
one thread.
"""

from __future__ import annotations

from dataclasses import replace

from perfkit.codegen.nodes import (
    For,
    Guard,
    Instance,
    Let,
    Node,
    Region,
    bound_names,
    leaves,
    walk,
)


def parallelize(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Wrap the parallel loops into one region; nothing changes when there is none."""
    if not any(_has_parallel(n) for n in nodes):
        return nodes
    first = next(k for k, n in enumerate(nodes) if _has_parallel(n))
    last = max(k for k, n in enumerate(nodes) if _has_parallel(n))
    inside = _share(nodes[first : last + 1])
    return (*nodes[:first], Region("parallel", inside), *nodes[last + 1 :])


def _share(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Rewrite what every thread executes: parallel loops are shared, the rest is done once."""
    result: list[Node] = []
    alone: list[Node] = []

    def flush() -> None:
        if alone:
            result.append(Region("single", tuple(alone)))
            alone.clear()

    for node in nodes:
        if not _has_parallel(node):
            alone.append(node)
            continue
        flush()
        match node:
            case For() if node.mark("parallel") is not None:
                result.append(replace(_without_parallel(node), schedule=_clause(node)))
            case For() | Guard() | Let():
                result.append(replace(node, body=_share(node.body)))
            case _:
                result.append(Region("single", (_without_parallel(node),)))
    flush()
    return tuple(result)


def _has_parallel(node: Node) -> bool:
    return any(isinstance(n, For) and n.mark("parallel") is not None for n in walk(node))


def _without_parallel(node: Node) -> Node:
    """Parallel marks inside a parallel loop have no effect: one level of threads is used."""
    match node:
        case Instance():
            return node
        case For():
            marks = tuple(m for m in node.marks if m.kind != "parallel")
            return replace(node, marks=marks, body=tuple(map(_without_parallel, node.body)))
        case _:
            return replace(node, body=tuple(map(_without_parallel, node.body)))


def _clause(loop: For) -> str:
    """Static for even iterations; dynamic where the work inside depends on the iteration."""
    uneven = any(
        loop.name in bound_names(n.lower) | bound_names(n.upper)
        and not _same_length(n, loop.name)
        for n in walk(loop)
        if isinstance(n, For) and n is not loop
    )
    if not uneven:
        return "schedule(static)"
    # A loop over tiles has few, heavy iterations: hand them out one at a time.
    tiles = any(
        c > 1 for n in walk(loop) if isinstance(n, For) and n is not loop
        for bound in (n.lower,) for leaf in leaves(bound) for name, c in leaf.terms
        if name == loop.name
    )  # fmt: skip
    return "schedule(dynamic)" if tiles else "schedule(guided)"




def _same_length(loop: For, outer: str) -> bool:
    """A point loop of a tile: starts at ``c * outer`` and ends a constant later (or clipped)."""
    lowers, uppers = leaves(loop.lower), leaves(loop.upper)
    low = {a.coefficient(outer) for a in lowers if outer in a.names()}
    high = {a.coefficient(outer) for a in uppers if outer in a.names()}
    return low == high and len(low) == 1


