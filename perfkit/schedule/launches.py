"""Where a loop tree meets the GPU: host loops, launches, and what runs inside the programs.

A tree with ``grid`` marks is cut from the top: loops around grid loops run on the host, each nest
of grid loops is one launch per host iteration, and what has no grid loop at all is a launch of a
single program. Launches on one stream run one after the other, so every dependence between two of
them is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from perfkit.errors import TransformError
from perfkit.ir.tree import Loop, Node, Sequence, loops, statements


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel: ``grid`` loops (none for a single program) around ``body``.

    ``host`` are the loops outside, which run one launch per iteration.
    """

    host: tuple[Loop, ...]
    grid: tuple[Loop, ...]
    body: Node

    @property
    def statements(self) -> tuple[str, ...]:
        return statements(self.body)

    @property
    def outer(self) -> tuple[str, ...]:
        """Names of the loops outside the body."""
        return tuple(loop.name for loop in (*self.host, *self.grid))


@dataclass(frozen=True, slots=True)
class HostLoop:
    """A loop of launches; ``outer`` are the host loops around it."""

    loop: Loop
    outer: tuple[Loop, ...]
    body: tuple[HostNode, ...]


HostNode = HostLoop | Launch


def plan(tree: Node) -> tuple[HostNode, ...]:
    """Cut a tree into launches. Raises TransformError for marks that no kernel can have."""
    return _plan(tree, ())


def launches(nodes: tuple[HostNode, ...]) -> tuple[Launch, ...]:
    """Every kernel, in order."""
    return tuple(
        found
        for node in nodes
        for found in (launches(node.body) if isinstance(node, HostLoop) else (node,))
    )


def lanes(loop: Loop) -> int:
    """How many iterations of a loop are lanes of one tensor; 0 for an ordinary loop."""
    mark = loop.mark("block")
    return mark.factor if mark else 0


def _has_grid(node: Node) -> bool:
    return any(loop.mark("grid") for loop in loops(node))


def _plan(node: Node, host: tuple[Loop, ...]) -> tuple[HostNode, ...]:
    if not _has_grid(node):
        return (_launch(host, (), node),)
    match node:
        case Loop() if node.mark("grid"):
            nest = [node]
            body = node.body
            while isinstance(body, Loop) and body.mark("grid"):
                nest.append(body)
                body = body.body
            return (_launch(host, tuple(nest), body),)
        case Loop():
            if lanes(node):
                raise TransformError(
                    f"loop {node.name} has lanes but runs on the host, around a grid"
                )
            return (HostLoop(node, host, _plan(node.body, (*host, node))),)
        case Sequence(children=children):
            return _sequence(children, host)
    raise AssertionError("a leaf has no grid")


def _sequence(children: tuple[Node, ...], host: tuple[Loop, ...]) -> tuple[HostNode, ...]:
    """The launches of a sequence; neighbours without a grid share one program."""
    result: list[HostNode] = []
    alone: list[Node] = []

    def flush() -> None:
        if alone:
            body = alone[0] if len(alone) == 1 else Sequence(tuple(alone))
            result.append(_launch(host, (), body))
            alone.clear()

    for child in children:
        if _has_grid(child):
            flush()
            result += _plan(child, host)
        else:
            alone.append(child)
    flush()
    return tuple(result)


def _launch(host: tuple[Loop, ...], grid: tuple[Loop, ...], body: Node) -> Launch:
    inside = [loop.name for loop in loops(body) if loop.mark("grid")]
    if inside:
        raise TransformError(
            f"grid loop {inside[0]} is inside another grid, but not nested directly in it"
        )
    return Launch(host, grid, body)


__all__ = ["HostLoop", "HostNode", "Launch", "lanes", "launches", "plan"]
