"""Transforms that say how loops run on a GPU: as programs of a grid, as lanes of a tensor.

A Triton program computes on whole tensors. A loop marked ``grid`` becomes a dimension of the grid,
one iteration per program; ``block(n)`` makes n consecutive iterations the lanes of one tensor axis;
a loop with both marks gives each program n of its iterations. Loops around grid loops run on the
host, one launch after the other; the others run in order inside a program.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from perfkit.analysis.dependences import Analysis
from perfkit.ir.tree import Loop, Mark, Node, find_loop, loops, rewrite
from perfkit.schedule.base import TreeTransform, chain, require, tidy
from perfkit.schedule.state import State

MOST_GRID_LOOPS = 3
LARGEST_BLOCK = 4096
LARGEST_STAGES = 8
WARPS = (1, 2, 4, 8, 16)


def marked(tree: Node, steps: Iterable[TreeTransform]) -> Node:
    """A tree with the marks of steps that :mod:`perfkit.schedule.gpu_mapping` chose, unproved."""
    tree = tidy(tree)
    for step in steps:
        match step:
            case MapGrid(loops=names):
                for name in names:
                    tree = _with_mark(tree, name, Mark("grid"))
            case MapBlock(loop=name, size=size):
                tree = _with_mark(tree, name, Mark("block", size))
            case Stages(loop=name, count=count):
                tree = _with_mark(tree, name, Mark("stages", count))
            case Warps(loop=name, count=count):
                tree = _with_mark(tree, name, Mark("warps", count))
    return tree


def default_warps(tile_bytes: float, has_dot: bool) -> int:
    """Warps of a program whose largest tensor has so many bytes.

    One for each KiB (8 elements of single precision per thread), 4 to 8 for products, at most 8.
    """
    return max(4, min(8, int(tile_bytes) // 4096)) if has_dot else max(
        1, min(8, int(tile_bytes) // 1024)
    )


def _with_mark(tree: Node, name: str, mark: Mark) -> Node:
    def change(loop: Loop) -> Loop:
        kept = tuple(m for m in loop.marks if m.kind != mark.kind)
        return replace(loop, marks=(*kept, mark))

    return rewrite(tree, name, change)


@dataclass(frozen=True, init=False)
class MapGrid(TreeTransform):
    """Run the iterations of a nest as different programs of one grid.

    Before ``for i for j S``, after ``MapGrid(i, j)``: ``for i grid for j grid S``. At most three
    loops, nested without statements in between. Legal when they carry no dependence: programs run
    in any order and cannot wait for each other, so not even a reduction.
    """

    loops: tuple[str, ...]

    def __init__(self, *loops: str) -> None:
        object.__setattr__(self, "loops", tuple(loops))

    def __str__(self) -> str:
        return f"MapGrid({', '.join(self.loops)})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        require(0 < len(self.loops) <= MOST_GRID_LOOPS, self, "a grid has one to three loops")
        tree = tidy(state.tree)
        nest = tuple(loop.name for loop in chain(tree, self.loops[0]))
        require(
            nest[: len(self.loops)] == self.loops,
            self,
            f"the loops are not a nest, outermost first; from {self.loops[0]} on there are "
            f"{', '.join(nest)}",
        )
        for name in self.loops:
            tree = _with_mark(tree, name, Mark("grid"))
        return (tree,)


@dataclass(frozen=True)
class MapBlock(TreeTransform):
    """Make n consecutive iterations of a loop the lanes of one tensor axis.

    Before ``for j S``, after ``MapBlock(j, 64)``: ``for j block(64) S``. n is a power of two; what
    is left over at the ends is masked. Legal when the loop carries nothing but reductions that may
    be reordered, which become ``tl.dot``, ``tl.sum``, ``tl.min`` or ``tl.max``, and recurrences of
    one step that may be reassociated, which become ``tl.associative_scan``.
    """

    loop: str
    size: int

    def __str__(self) -> str:
        return f"MapBlock({self.loop}, {self.size})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        fits = isinstance(self.size, int) and 2 <= self.size <= LARGEST_BLOCK
        require(
            fits and self.size & (self.size - 1) == 0,
            self,
            f"the size must be a power of two from 2 to {LARGEST_BLOCK}",
        )
        return (_with_mark(tidy(state.tree), self.loop, Mark("block", self.size)),)


@dataclass(frozen=True)
class Stages(TreeTransform):
    """Software-pipeline a loop that runs inside programs: loads run n - 1 iterations ahead.

    Before ``for k S``, after ``Stages(k, 3)``: ``for k stages(3) S``. The order stays; Triton
    pipelines only loops that exchange nothing through memory.
    """

    loop: str
    count: int

    def __str__(self) -> str:
        return f"Stages({self.loop}, {self.count})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        fits = isinstance(self.count, int) and 1 <= self.count <= LARGEST_STAGES
        require(fits, self, f"the number of stages must be 1 to {LARGEST_STAGES}")
        loop = find_loop(state.tree, self.loop)
        inside = [loop, *loops(loop.body)]
        require(
            not any(n.mark("grid") for n in inside), self, "only loops inside programs have stages"
        )
        return (_with_mark(tidy(state.tree), self.loop, Mark("stages", self.count)),)


@dataclass(frozen=True)
class Warps(TreeTransform):
    """Give every program of a grid n warps.

    Before ``for i grid S``, after ``Warps(i, 8)``: ``for i grid warps(8) S``; ``i`` is the outer
    loop of the grid.
    """

    loop: str
    count: int

    def __str__(self) -> str:
        return f"Warps({self.loop}, {self.count})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        require(self.count in WARPS, self, f"the number of warps must be one of {WARPS}")
        marked = find_loop(state.tree, self.loop).mark("grid")
        require(marked is not None, self, f"{self.loop} is not a loop of a grid")
        return (_with_mark(tidy(state.tree), self.loop, Mark("warps", self.count)),)


GPU_TRANSFORMS: Mapping[str, type[TreeTransform]] = {
    cls.__name__: cls for cls in (MapGrid, MapBlock, Stages, Warps)
}

__all__ = [
    "GPU_TRANSFORMS", "MapBlock", "MapGrid", "Stages", "Warps", "default_warps", "marked",
]  # fmt: skip
