"""What a transform maps: a SCoP together with its current loop tree."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from perfkit.ir.scop import Scop
from perfkit.ir.tree import Node


@dataclass(frozen=True)
class State:
    """A program and the order it runs in.

    ``scop`` starts as ``original`` and changes with storage transforms and index-set splitting;
    ``tree`` is the schedule of ``scop``'s statements. ``fp`` says whether reductions may be
    reordered: "strict" keeps every floating-point sum in source order, "reassociate" does not.
    """

    original: Scop
    scop: Scop
    tree: Node
    fp: str = "strict"

    @staticmethod
    def start(scop: Scop, fp: str = "strict") -> State:
        return State(scop, scop, scop.tree, fp)

    def with_tree(self, tree: Node) -> State:
        return replace(self, tree=tree)


class Transform(Protocol):
    """One step of a script. ``str(step)`` is its text; ``apply`` raises ScheduleError to refuse."""

    def apply(self, state: State) -> State: ...


__all__ = ["State", "Transform"]
