"""Chains of stencil steps as overlapped tiles.

Every tile of the result computes what it needs of the steps before, halos included, in buffers
that stay in the cache; neighbouring tiles compute their common halos twice. A schedule cannot
express that, since it repeats instances, so it is decided here. (Overlapped tiling: Krishnamoorthy
et al., PLDI 2007; computing producers per tile of a consumer: Ragan-Kelley et al., PLDI 2013.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from perfkit.errors import Location
from perfkit.frontends.fx_stages import Stage, Write, index_value, value
from perfkit.frontends.fx_storage import Stored
from perfkit.frontends.syntax import (
    Assign,
    Declare,
    Element,
    For,
    Number,
    Operation,
    Stmt,
)
from perfkit.ir.affine import Affine
from perfkit.ir.expr import Access, Expr, loads, map_accesses, substitute

TILES = {1: (4096,), 2: (64, 256), 3: (16, 32, 128)}
"""Tile sizes by the number of dimensions."""

STEPS = 4
"""Chains shorter than this gain little."""

ELEMENTS = 1 << 16
"""Arrays smaller than this stay in the cache anyway."""

REPEATED = 1.6
"""How many times the work of the steps may be repeated at most."""


@dataclass(frozen=True)
class _Step:
    """A stage of the chain: ``axes`` by dimension, what it writes, its range beyond the tile."""

    stage: Stage
    write: Write
    axes: tuple[str, ...]
    extents: tuple[int, ...]
    low: tuple[int, ...] = ()
    high: tuple[int, ...] = ()


def tiles(
    stages: Sequence[Stage],
    arrays: Mapping[str, Stored],
    location: Location,
) -> tuple[Stmt, ...] | None:
    """The region as overlapped tiles; None where it is not such a chain, or not worth it."""
    steps = _chain(stages, arrays)
    if steps is None:
        return None
    sizes = TILES[len(steps[0].axes)]
    ranged = _ranges(steps, arrays)
    if ranged is None or not _worth(ranged, sizes):
        return None
    return _emit(ranged, sizes, arrays, location)


def _chain(stages: Sequence[Stage], arrays: Mapping[str, Stored]) -> list[_Step] | None:
    if len(stages) < STEPS:
        return None
    steps: list[_Step] = []
    for stage in stages:
        if len(stage.parts) != 1 or len(stage.parts[0].body) != 1:
            return None
        (part,) = stage.parts
        (write,) = part.body
        if any(a.first != Affine.constant(0) or len(a.lasts) != 1 for a in part.axes):
            return None
        if not all(a.lasts[0].is_constant for a in part.axes):
            return None
        axes = tuple(a.name for a in part.axes)
        if write.target.indices != tuple(map(Affine.variable, axes)):
            return None
        extents = tuple(a.lasts[0].const + 1 for a in part.axes)
        steps.append(_Step(stage, write, axes, extents))
    rank = len(steps[0].axes)
    if rank not in TILES or any(len(s.axes) != rank for s in steps):
        return None
    if any(not arrays[s.write.target.array].local for s in steps[:-1]):
        return None
    return steps


def _offsets(step: _Step, access: Access) -> tuple[int, ...] | None:
    """How far from the step's own index an access is, per dimension."""
    found = []
    for index, axis in zip(access.indices, step.axes, strict=True):
        away = index - Affine.variable(axis)
        if not away.is_constant:
            return None
        found.append(away.const)
    return tuple(found)


def _ranges(steps: Sequence[_Step], arrays: Mapping[str, Stored]) -> list[_Step] | None:
    """Each step with how far it must reach beyond a tile of the result."""
    rank = len(steps[0].axes)
    made = {s.write.target.array for s in steps}
    need: dict[str, tuple[list[int], list[int]]] = {
        steps[-1].write.target.array: ([0] * rank, [0] * rank)
    }
    result: list[_Step] = []
    moved = False
    for step in reversed(steps):
        low, high = need.get(step.write.target.array, ([0] * rank, [0] * rank))
        result.append(
            _Step(step.stage, step.write, step.axes, step.extents, tuple(low), tuple(high))
        )
        for access in loads(step.write.value):
            if access.array not in made:
                continue
            away = _offsets(step, access)
            if away is None:
                return None
            moved = moved or any(away)
            before, after = need.setdefault(
                access.array,
                ([a + b for a, b in zip(low, away, strict=True)],
                 [a + b for a, b in zip(high, away, strict=True)]),
            )  # fmt: skip
            for d in range(rank):
                before[d] = min(before[d], low[d] + away[d])
                after[d] = max(after[d], high[d] + away[d])
    return result[::-1] if moved else None


def _worth(steps: Sequence[_Step], sizes: Sequence[int]) -> bool:
    if prod(steps[-1].extents) < ELEMENTS:
        return False
    work = sum(prod(_width(s, d, sizes) for d in range(len(sizes))) for s in steps)
    return work <= REPEATED * len(steps) * prod(sizes)


def _width(step: _Step, d: int, sizes: Sequence[int]) -> int:
    return sizes[d] + step.high[d] - step.low[d]


def _slots(steps: Sequence[_Step]) -> dict[str, int]:
    """Buffers by array: one is free again after the last step that reads its array."""
    last: dict[str, int] = {}
    for k, step in enumerate(steps):
        for access in loads(step.write.value):
            last[access.array] = k
    slots: dict[str, int] = {}
    busy: dict[int, int] = {}
    for k, step in enumerate(steps[:-1]):
        slot = next(s for s in range(len(steps)) if busy.get(s, -1) < k)
        slots[step.write.target.array] = slot
        busy[slot] = last.get(step.write.target.array, k)
    return slots


def _emit(
    steps: Sequence[_Step], sizes: Sequence[int], arrays: Mapping[str, Stored], location: Location
) -> tuple[Stmt, ...]:
    rank = len(sizes)
    slots = _slots(steps)
    by_array = {s.write.target.array: s for s in steps[:-1]}
    tile = [Affine.variable(f"b{d}") for d in range(rank)]
    counts = [-(-n // size) for n, size in zip(steps[-1].extents, sizes, strict=True)]

    def buffer(array: str) -> str:
        return f"{arrays[array].dtype}_{slots[array]}"

    def place(access: Access) -> Access:
        step = by_array.get(access.array)
        if step is None:
            return access
        inside = tuple(
            index - tile[d] * sizes[d] - step.low[d] for d, index in enumerate(access.indices)
        )
        return Access(buffer(access.array), (*tile, *inside))

    extents: dict[str, list[int]] = {}
    for array, step in by_array.items():
        known = extents.setdefault(buffer(array), [0] * rank)
        extents[buffer(array)] = [max(n, _width(step, d, sizes)) for d, n in enumerate(known)]
    body: list[Stmt] = []
    for step in steps:
        rename = {a: Affine.variable(f"x{d}") for d, a in enumerate(step.axes)}
        target = place(step.write.target.substitute(rename))
        written = map_accesses(substitute(step.write.value, rename), place)
        body += _loops(step, sizes, tile, (target, written), location)
    result: tuple[Stmt, ...] = tuple(body)
    for d in reversed(range(rank)):
        zero, last = Number("int64", 0), Number("int64", counts[d] - 1)
        result = (For(f"b{d}", zero, last, 1, result, location),)
    declared = [
        Declare(
            name, name.rpartition("_")[0],
            tuple(Number("int64", n) for n in (*counts, *shape)), location,
        )
        for name, shape in extents.items()
    ]  # fmt: skip
    return (*declared, *result)


def _loops(
    step: _Step,
    sizes: Sequence[int],
    tile: Sequence[Affine],
    write: tuple[Access, Expr],
    location: Location,
) -> tuple[Stmt, ...]:
    """One step over its part of a tile, clipped to its array."""
    target, written = write
    element = Element(written.dtype, target.array, tuple(map(index_value, target.indices)))
    body: tuple[Stmt, ...] = (Assign(element, value(written), location, step.stage.text),)
    for d in reversed(range(len(sizes))):
        first = index_value(tile[d] * sizes[d] + step.low[d])
        last = index_value(tile[d] * sizes[d] + (sizes[d] - 1 + step.high[d]))
        end = Number("int64", step.extents[d] - 1)
        if step.low[d] < 0:
            first = Operation("int64", "max", (first, Number("int64", 0)))
        last = Operation("int64", "min", (last, end))
        body = (For(f"x{d}", first, last, 1, body, location),)
    return body


__all__ = ["tiles"]
