"""Strip-mining and tiling of perfect nests, any number of levels.

Names: the tile loop of ``i`` is ``i_t``, or ``i_t2``, ``i_t3``... when that is taken. So tiling the
point loops once more puts ``i_t2`` between ``i_t`` and ``i`` (a finer level), and tiling the tile
loops puts ``i_t_t`` outside ``i_t`` (a coarser one).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from perfkit.analysis.dependences import Analysis
from perfkit.errors import TransformError
from perfkit.ir.tree import Loop, Node, find_loop
from perfkit.schedule.base import TreeTransform, chain, loop_names, nest, replace_node, tidy
from perfkit.schedule.state import State


def tile_name(loop: str, taken: Iterable[str]) -> str:
    """The name that the tile loop of ``loop`` gets in a tree that uses the names ``taken``."""
    used = set(taken)
    name, k = f"{loop}_t", 2
    while name in used:
        name, k = f"{loop}_t{k}", k + 1
    return name


def _tile_loop(loop: Loop, size: int, taken: Iterable[str]) -> Loop:
    return replace(
        loop,
        name=tile_name(loop.name, taken),
        schedule=tuple((s, e.floordiv(size)) for s, e in loop.schedule),
        marks=(),
    )


@dataclass(frozen=True, init=False)
class Tile(TreeTransform):
    """Tile consecutive loops of a perfect nest: all tile loops outside all point loops.

    Before ``for i(S: i) for j(S: j) S``, after ``Tile(i=32, j=8)``:
    ``for i_t(S: floor(i/32)) for j_t(S: floor(j/8)) for i(S: i) for j(S: j) S``.
    Marks stay on the point loops.
    """

    sizes: tuple[tuple[str, int], ...]

    def __init__(self, **sizes: int) -> None:
        object.__setattr__(self, "sizes", tuple(sizes.items()))

    @staticmethod
    def of(sizes: Iterable[tuple[str, int]]) -> Tile:
        return Tile(**dict(sizes))

    def __str__(self) -> str:
        return f"Tile({', '.join(f'{n}={s}' for n, s in self.sizes)})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        if not self.sizes:
            raise TransformError("Tile: names no loop")
        for name, size in self.sizes:
            if not isinstance(size, int) or size < 2:
                raise TransformError(f"{self}: the size of {name} must be an integer above 1")
        tree = tidy(state.tree)
        for name, _ in self.sizes:
            find_loop(tree, name)
        band = chain(tree, self.sizes[0][0])[: len(self.sizes)]
        if [loop.name for loop in band] != [name for name, _ in self.sizes]:
            raise TransformError(
                f"{self}: the perfect nest at {self.sizes[0][0]} is "
                f"{', '.join(loop.name for loop in band)}, in this order"
            )
        taken = loop_names(tree)
        tiles = tuple(
            _tile_loop(loop, size, taken) for loop, (_, size) in zip(band, self.sizes, strict=True)
        )
        return (replace_node(tree, band[0], nest(tiles + band, band[-1].body)),)


@dataclass(frozen=True)
class StripMine(TreeTransform):
    """Cut a loop into strips; the order stays, so it is always legal.

    Before ``for i(S: i) S``, after ``StripMine(i, 4)``:
    ``for i_t(S: floor(i/4)) for i(S: i) S``.
    """

    loop: str
    size: int

    def __str__(self) -> str:
        return f"StripMine({self.loop}, {self.size})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        return Tile.of([(self.loop, self.size)]).rewrites(state, analysis)


__all__ = ["StripMine", "Tile", "tile_name"]
