"""Every transform of loop trees in one place, and the table that scripts read them from."""

from __future__ import annotations

from collections.abc import Mapping

from perfkit.schedule.base import TreeTransform
from perfkit.schedule.diamond import Diamond
from perfkit.schedule.loops import Interchange, Reverse, Shift, Skew, Wavefront
from perfkit.schedule.marks import Jam, Parallelize, Unmark, Unroll, Vectorize
from perfkit.schedule.structure import Distribute, Embed, Fuse, Order, Reorder, solve_shift
from perfkit.schedule.tiling import StripMine, Tile, tile_name

TREE_TRANSFORMS: Mapping[str, type[TreeTransform]] = {
    cls.__name__: cls
    for cls in (
        Fuse, Distribute, Embed, Reorder, Order, Interchange, Reverse, Skew, Shift, Wavefront,
        Tile, StripMine, Diamond, Parallelize, Vectorize, Unroll, Jam, Unmark,
    )
}  # fmt: skip

__all__ = [
    "TREE_TRANSFORMS", "Diamond", "Distribute", "Embed", "Fuse", "Interchange", "Jam", "Order",
    "Parallelize", "Reorder", "Reverse", "Shift", "Skew", "StripMine", "Tile", "TreeTransform",
    "Unmark", "Unroll", "Vectorize", "Wavefront", "solve_shift", "tile_name",
]  # fmt: skip
