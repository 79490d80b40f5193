"""What one Triton program does, as a small tree: loops over blocks, statements on tensors.

It is made from isl's loop AST (:mod:`perfkit.codegen.nodes`); then tiles are held in registers
(:mod:`perfkit.codegen.triton_hold`) and barriers are set (:mod:`perfkit.codegen.triton_exchange`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import islpy as isl

from perfkit.codegen import nodes as loop_ast
from perfkit.codegen.nodes import Bound
from perfkit.errors import InternalError
from perfkit.ir.affine import Affine, Piece
from perfkit.ir.tree import Mark


@dataclass(frozen=True, slots=True)
class Repeat:
    """``for name in range(lower, upper + 1, step)``; ``name`` is a loop or the block of one."""

    name: str
    lower: Bound
    upper: Bound
    step: int
    body: tuple[Node, ...]
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class If:
    """``body`` where the condition holds, the same for all lanes."""

    condition: tuple[Piece, ...]
    body: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """All lanes of a statement at once; ``values`` are the loops and blocks of the program."""

    statement: str
    values: tuple[tuple[str, Affine], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """Elements of an array that the program keeps in registers, one for each of ``lanes``.

    ``indices`` are over loop variables and lanes, ``blocks`` says where each lane stands. ``load``
    and ``store`` are the lanes to read before and to write back after, None where nothing is;
    ``used`` are the lanes whose content matters.
    """

    name: str
    array: str
    indices: tuple[Affine, ...]
    lanes: tuple[str, ...]
    blocks: tuple[tuple[str, Affine], ...]
    load: tuple[Piece, ...] | None
    store: tuple[Piece, ...] | None
    used: isl.Set


@dataclass(frozen=True, slots=True)
class Held:
    """Tiles that live in registers around ``body``."""

    tiles: tuple[Tile, ...]
    body: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Barrier:
    """What was stored before is seen by what is loaded after, across the lanes of a program."""


Node = Repeat | If | Run | Held | Barrier


def convert(nodes: tuple[loop_ast.Node, ...]) -> tuple[Node, ...]:
    """isl's loops as they come out of :func:`perfkit.codegen.ast.lower`."""
    result: list[Node] = []
    for node in nodes:
        match node:
            case loop_ast.For():
                body = convert(node.body)
                result.append(
                    Repeat(node.name, node.lower, node.upper, node.step, body, node.marks)
                )
            case loop_ast.Guard():
                result.append(If(node.condition, convert(node.body)))
            case loop_ast.Pieces():
                result += convert(node.body)
            case loop_ast.Instance():
                result.append(Run(node.statement, node.values))
            case _:
                raise InternalError(f"unexpected node for Triton: {node}")
    return tuple(result)


def body_of(node: Node) -> tuple[Node, ...]:
    return () if isinstance(node, Run | Barrier) else node.body


def walk(nodes: tuple[Node, ...]) -> Iterator[Node]:
    for node in nodes:
        yield node
        yield from walk(body_of(node))


def runs(nodes: tuple[Node, ...]) -> tuple[Run, ...]:
    return tuple(n for n in walk(nodes) if isinstance(n, Run))


__all__ = [
    "Barrier", "Held", "If", "Node", "Repeat", "Run", "Tile", "body_of", "convert", "runs", "walk",
]  # fmt: skip
