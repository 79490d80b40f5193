"""Transforms that say how a loop runs: on threads, in SIMD lanes, unrolled, register-tiled.

A mark is proved when it is set and again after every later transform, so a script that ends without
an error has only proved marks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from perfkit.analysis.dependences import Analysis
from perfkit.errors import TransformError
from perfkit.ir.tree import Loop, Mark, Node, find_loop, rewrite
from perfkit.schedule.base import TreeTransform, tidy
from perfkit.schedule.state import State


def _marked(state: State, name: str, mark: Mark) -> Node:
    def change(loop: Loop) -> Loop:
        kept = tuple(m for m in loop.marks if m.kind != mark.kind)
        return replace(loop, marks=(*kept, mark))

    return rewrite(tidy(state.tree), name, change)


def _factor(transform: object, factor: int) -> None:
    if not isinstance(factor, int) or factor < 2:
        raise TransformError(f"{transform}: the factor must be an integer above 1")


@dataclass(frozen=True)
class Parallelize(TreeTransform):
    """Run the iterations of a loop on several threads.

    Before ``for i S``, after ``Parallelize(i)``: ``for i parallel S``. Legal when the loop carries
    no dependence; reductions only where the generator privatises them
    (``Analysis.parallel_reductions``).
    """

    loop: str

    def __str__(self) -> str:
        return f"Parallelize({self.loop})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        return (_marked(state, self.loop, Mark("parallel")),)


@dataclass(frozen=True)
class Vectorize(TreeTransform):
    """Run n iterations of a loop in SIMD lanes; loops inside it run once for all lanes.

    Before ``for j S``, after ``Vectorize(j, 8)``: ``for j vector(8) S``. Legal when the loop
    carries no dependence, reordered reductions apart.
    """

    loop: str
    factor: int

    def __str__(self) -> str:
        return f"Vectorize({self.loop}, {self.factor})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        _factor(self, self.factor)
        return (_marked(state, self.loop, Mark("vector", self.factor)),)


@dataclass(frozen=True)
class Unroll(TreeTransform):
    """Repeat the body of a loop n times per test; the order stays, so it is always legal.

    Before ``for i S``, after ``Unroll(i, 4)``: ``for i unroll(4) S``.
    """

    loop: str
    factor: int

    def __str__(self) -> str:
        return f"Unroll({self.loop}, {self.factor})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        _factor(self, self.factor)
        return (_marked(state, self.loop, Mark("unroll", self.factor)),)


@dataclass(frozen=True)
class Jam(TreeTransform):
    """Unroll a loop by n and jam the copies into the loops inside (register tiling).

    Before ``for i for k S``, after ``Jam(i, 4)``: ``for i jam(4) for k S``, which runs as
    ``for i step 4 for k {S(i); S(i+1); S(i+2); S(i+3)}``, wherever the chunks start.
    """

    loop: str
    factor: int

    def __str__(self) -> str:
        return f"Jam({self.loop}, {self.factor})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        _factor(self, self.factor)
        return (_marked(state, self.loop, Mark("jam", self.factor)),)


@dataclass(frozen=True)
class Unmark(TreeTransform):
    """Remove every mark of a loop.

    Before ``for i parallel S``, after ``Unmark(i)``: ``for i S``.
    """

    loop: str

    def __str__(self) -> str:
        return f"Unmark({self.loop})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        find_loop(state.tree, self.loop)
        return (rewrite(tidy(state.tree), self.loop, lambda loop: replace(loop, marks=())),)


__all__ = ["Jam", "Parallelize", "Unmark", "Unroll", "Vectorize"]
