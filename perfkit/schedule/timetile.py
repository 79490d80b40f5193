"""Time tiling: a block of space runs several steps of a time loop while it lies in the cache.

A program that sweeps over its arrays once per time step brings them in once per step. In a
permutable band whose outermost loop is such a time loop, tiles over time and space bring a block in
once for many steps (M. Wolf and M. Lam, 1991; U. Bondhugula et al., 2008). The sizes follow from
the cache: a block at one step takes half of it, and a tile runs so many steps that the block,
which slides along with the skewed loops, has moved on by about its own width.
"""

from __future__ import annotations

from math import isqrt

from perfkit.ir.expr import ITEMSIZE
from perfkit.ir.scop import Scop
from perfkit.ir.tree import Node, find_loop, statements
from perfkit.schedule.pluto import Band
from perfkit.schedule.shape import Extents

FORMS = ("rows", "blocks")
"""Blocks of whole rows, and blocks that are cut along the innermost loop, too."""

ROWS = ((1024, 512), (128, 64))
"""Elements of a row by form: taken for granted where rows stay whole, chosen where they are cut.

Grids with more than two dimensions have shorter rows.
"""

SHORTEST = 4


def is_time_band(scop: Scop, tree: Node, band: Band) -> bool:
    """Does the outermost loop of a permutable band only repeat what the others sweep over?

    No statement may write elsewhere when it advances.
    """
    if not band.permutable or len(band.loops) < 2:
        return False
    outer = find_loop(tree, band.loops[0])
    for name in statements(outer):
        statement = scop.statement(name)
        moving = outer.expression(name).names() & set(statement.iterators)
        if any(moving & index.names() for index in statement.write.indices):
            return False
    return True


def shapes(scop: Scop, tree: Node, band: Band, cache: int) -> dict[str, Extents]:
    """Tile sizes for a time band in each of the ``FORMS`` that suit it.

    ``cache`` is the size in bytes of the cache that blocks are meant for.
    """
    time, *space = band.loops
    cells = max(1, cache // 2 // _cell_bytes(scop, tree, band))
    skew = _skew(scop, tree, band)
    if len(space) == 1:
        size = _power(max(SHORTEST, isqrt(cells)))
        return {FORMS[0]: ((time, max(2, size // skew)), (space[0], size))}
    *outer, inner = space
    found: dict[str, Extents] = {}
    for form, row in zip(FORMS, ROWS[len(outer) > 1], strict=True):
        row = min(row, _power(isqrt(cells) * 16))
        sides = _sides(max(1, cells // row), len(outer))
        cut = ((inner, row),) if form == "blocks" else ()
        steps = max(2, sides[0] // skew)
        found[form] = ((time, steps), *zip(outer, sides, strict=True), *cut)
    return found


def diamond_sizes(
    scop: Scop, tree: Node, band: Band, cache: int, row: float | None = None
) -> Extents:
    """The width of diamonds over the first loop of space, and of strips of the second one.

    ``row`` is the number of elements of a row, where it is known.

    Where the rows of the second loop are cut into strips, a diamond slides along them. On average
    it is half as wide as at its widest, and its strips lean on each other by its own width; all
    that is to take up the cache.
    """
    _, first, *others = band.loops
    cells = max(1, cache // _cell_bytes(scop, tree, band))
    if not others:
        return ((first, _power(max(SHORTEST, isqrt(cells)))),)
    length = max(1, round(row or ROWS[0][len(others) > 1]))
    if len(others) == 1:
        return ((first, _power(max(SHORTEST, 2 * cells // length))),)
    width = _power(max(SHORTEST, isqrt(2 * cells // length)))
    return ((first, width), (others[0], max(SHORTEST, width // 2)))


def _cell_bytes(scop: Scop, tree: Node, band: Band) -> int:
    """Bytes at one point of space: the elements of all arrays that are swept over."""
    used = statements(find_loop(tree, band.loops[0]))
    arrays = {
        access.array
        for name in used
        for access in (scop.statement(name).write, *scop.statement(name).reads)
    }
    rank = len(band.loops) - 1
    found = (scop.array(name) for name in arrays)
    return max(1, sum(ITEMSIZE[a.dtype] for a in found if a.rank >= rank))


def _sides(area: int, count: int) -> tuple[int, ...]:
    """Powers of two with about the product ``area``, outer ones smaller, none below SHORTEST."""
    sides: list[int] = []
    for left in range(count, 0, -1):
        side = _power(max(SHORTEST, round(area ** (1 / left))))
        sides.append(side)
        area = max(1, area // side)
    return tuple(sides)


def _power(value: int) -> int:
    """The largest power of two up to ``value``."""
    return 1 << (max(1, value).bit_length() - 1)


def _skew(scop: Scop, tree: Node, band: Band) -> int:
    """By how much the outermost loop over space advances along with one step of time."""
    time, loop = (find_loop(tree, name) for name in band.loops[:2])
    found = [1]
    for name in statements(time):
        for iterator in time.expression(name).names() & set(scop.statement(name).iterators):
            found.append(abs(loop.expression(name).coefficient(iterator)))
    return max(found)


__all__ = ["FORMS", "diamond_sizes", "is_time_band", "shapes"]
