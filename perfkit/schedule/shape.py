"""Giving an order its shape: tiles, wavefronts, and the loops that run in parallel or in lanes.

Each function adds steps to a script where they are legal and look worth it, and leaves the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import permutations

from perfkit.ir.tree import Loop, Node, Sequence, depth_of, find_loop, loops, statements
from perfkit.schedule import legality
from perfkit.schedule.base import children_of, label, loop_names
from perfkit.schedule.locality import Locality, is_long, lanes
from perfkit.schedule.pluto import Band, Found
from perfkit.schedule.steps import Steps
from perfkit.schedule.transforms import (
    Diamond,
    Distribute,
    Interchange,
    Parallelize,
    Reorder,
    StripMine,
    Tile,
    Vectorize,
    Wavefront,
    tile_name,
)

Extents = tuple[tuple[str, int], ...]
"""Tile sizes by loop, outermost first; the loops of a band that are left out are not tiled."""

MOST_ORDERED = 3
"""Up to so many statements all textual orders are tried when a loop is distributed."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Tile sizes: ``inner`` for the loop that runs in lanes, ``outer`` for the others.

    ``cache`` has the bytes of a core's second cache, which blocks of several time steps and copied
    blocks of matrices are to stay in. ``values`` gives the parameters that are known, and
    ``threads`` is how many share the blocks of a loop whose length then is known.
    """

    outer: int = 32
    inner: int = 64
    cache: int = 512 << 10
    threads: int = 1
    values: Mapping[str, int] = field(default_factory=dict)


# -- bands -----------------------------------------------------------------------------------


def coincident_first(found: Found) -> Found:
    """The same schedule with the parallel loops of every band outside the others."""
    tree = found.tree
    bands: list[Band] = []
    for band in found.bands:
        if band.permutable and len(band.loops) > 1:
            order = sorted(range(len(band.loops)), key=lambda k: not band.coincident[k])
            names = tuple(band.loops[k] for k in order)
            tree = permuted(tree, band.loops, names)
            band = replace(band, loops=names, coincident=tuple(band.coincident[k] for k in order))
        bands.append(band)
    return Found(tree, tuple(bands))


def best_last(found: Found, locality: Locality) -> Found:
    """The same schedule with the loop of best locality innermost in every band.

    The outermost loop stays parallel where it was.
    """
    tree = found.tree
    bands: list[Band] = []
    for band in found.bands:
        best = _best(band, locality)
        flags = dict(zip(band.loops, band.coincident, strict=True))
        if band.permutable and best is not None:
            names = (*(n for n in band.loops if n != best), best)
            if flags[names[0]] or not flags[band.loops[0]]:
                tree = permuted(tree, band.loops, names)
                band = replace(band, loops=names, coincident=tuple(flags[n] for n in names))
        bands.append(band)
    return Found(tree, tuple(bands))


def _best(band: Band, locality: Locality) -> str | None:
    """The loop of a band to run innermost; None when any would do as well as the last."""
    free = [n for n, c in zip(band.loops, band.coincident, strict=True) if c]
    suited = [n for n in free if locality.suits_lanes(n)]
    pool = suited or list(band.loops)
    best = max(pool, key=lambda n: (locality.score(n), band.loops.index(n)))
    return None if best == band.loops[-1] else best


def permuted(tree: Node, old: tuple[str, ...], new: tuple[str, ...]) -> Node:
    """The tree with a perfect nest of loops in another order."""
    nest = [find_loop(tree, name) for name in old]
    by_name = {loop.name: loop for loop in nest}
    body = nest[-1].body
    order = statements(body)
    for name in reversed(new):
        schedule = dict(by_name[name].schedule)
        body = replace(by_name[name], schedule=tuple((s, schedule[s]) for s in order), body=body)
    outer = nest[0]

    def visit(node: Node) -> Node:
        if node is outer:
            return body
        match node:
            case Loop():
                return replace(node, body=visit(node.body))
            case Sequence():
                return Sequence(tuple(map(visit, node.children)))
            case _:
                return node

    return visit(tree)


# -- tiles -----------------------------------------------------------------------------------


def tile_band(steps: Steps, band: Band, sizes: Sizes) -> None:
    """Tile a permutable band, put its best loop innermost, and make a tile loop parallel."""
    locality = Locality.of(steps.state.scop, steps.tree)
    best = _best(band, locality) or band.loops[-1]
    chosen = tuple((n, sizes.inner if n == best else sizes.outer) for n in band.loops)
    if tile_as(steps, band, chosen):
        _reorder(steps, list(band.loops), [n for n in band.loops if n != best] + [best])


def tile_as(steps: Steps, band: Band, chosen: Extents) -> bool:
    """Tile the first loops of a permutable band by given sizes, and make a tile loop parallel.

    Without a parallel tile loop the two outermost become wavefronts (Wolf and Lam, 1991).
    """
    taken = loop_names(steps.tree)
    if not steps.attempt(Tile.of(chosen)):
        return False
    outer, second = (tile_name(n, taken) for n in band.loops[:2])
    if not legality.is_parallel(steps.dependences, steps.tree, outer):
        steps.attempt(Wavefront(outer, second), Parallelize(second))
    return True


def diamond_as(steps: Steps, band: Band, chosen: Extents) -> bool:
    """Tile a time loop and the first loop of space by diamonds, and distribute what is inside.

    ``chosen`` is the width of the diamonds and, where the second loop of space is to run in strips
    outside of time, their width.
    """
    time, first, *others = band.loops
    trial = steps.copy()
    if not trial.attempt(Diamond(time, first, chosen[0][1])):
        return False
    for loop, width in chosen[1:]:
        strip = tile_name(loop, loop_names(trial.tree))
        if not trial.attempt(
            StripMine(loop, width), Interchange(first, strip), Interchange(time, strip)
        ):
            return False
    steps.reset(trial)
    for name in reversed((first, *others)):
        body = find_loop(steps.tree, name).body
        parts = _distributed(steps, name, body) if isinstance(body, Sequence) else None
        if parts is not None:
            steps.reset(parts)
    return True


def _reorder(steps: Steps, current: list[str], wanted: list[str]) -> bool:
    for k, name in enumerate(wanted):
        if current[k] != name:
            other = current.index(name)
            if not steps.attempt(Interchange(current[k], name)):
                return False
            current[k], current[other] = current[other], current[k]
    return True


# -- marks -----------------------------------------------------------------------------------


def mark(steps: Steps, simd_bytes: int, everywhere: bool = False) -> None:
    """Mark the outermost parallel loop of every nest, and innermost loops for lanes.

    A loop with nothing but statements inside is left sequential below other sequential loops,
    where starting the threads costs more than it brings, unless ``everywhere``.
    """
    for name in list(_outermost_parallel(steps, steps.tree, 0, everywhere)):
        steps.attempt(Parallelize(name))
    locality = Locality.of(steps.state.scop, steps.tree)  # marks do not change it
    for loop in loops(steps.tree):
        if not loops(loop.body) and not loop.mark("vector"):
            vectorize(steps, loop, simd_bytes, locality)


def _outermost_parallel(steps: Steps, node: Node, around: int, everywhere: bool) -> Iterator[str]:
    if isinstance(node, Loop):
        if any(loop.mark("parallel") for loop in loops(node)):
            return
        worth = everywhere or not around or depth_of(node) > 1
        if (
            worth
            and is_long(steps.dependences.polyhedra, node)
            and legality.is_parallel(steps.dependences, steps.tree, node.name)
        ):
            yield node.name
            return
        around += is_long(steps.dependences.polyhedra, node, 2)
        node = node.body
    for child in children_of(node):
        if isinstance(child, Loop):
            yield from _outermost_parallel(steps, child, around, everywhere)


def vectorize(steps: Steps, loop: Loop, simd_bytes: int, locality: Locality) -> None:
    """Mark an innermost loop, or the loops that it is distributed into."""
    if _lanes_step(steps, loop.name, simd_bytes, locality):
        return
    if not isinstance(loop.body, Sequence):
        return
    known = loop_names(steps.tree)
    trial = _distributed(steps, loop.name, loop.body)
    if trial is None:
        return
    parts = [loop.name, *sorted(loop_names(trial.tree) - known)]
    locality = Locality.of(trial.state.scop, trial.tree)
    moving = [part for part in parts if not locality.stands_still(part)]
    if moving and all(_lanes_step(trial, part, simd_bytes, locality) for part in moving):
        steps.reset(trial)


def _distributed(steps: Steps, loop: str, body: Sequence) -> Steps | None:
    """The loop cut into one per child, in the first textual order that allows it."""
    names = [label(c) for c in body.children]
    # The scheduler leaves the textual order open where the loops order everything.
    orders = permutations(names) if len(names) <= MOST_ORDERED else [tuple(names)]
    for order in orders:
        trial = steps.copy()
        if list(order) != names and not trial.attempt(Reorder(*order)):
            continue
        if trial.attempt(Distribute(loop)):
            return trial
    return None


def _lanes_step(steps: Steps, name: str, simd_bytes: int, locality: Locality) -> bool:
    loop = find_loop(steps.tree, name)
    if not locality.suits_lanes(name):
        return False
    if not is_long(steps.dependences.polyhedra, loop):
        return False
    return steps.attempt(Vectorize(name, lanes(steps.state.scop, loop, simd_bytes)))


__all__ = [
    "Extents", "Sizes", "best_last", "coincident_first", "diamond_as", "mark", "permuted",
    "tile_as", "tile_band", "vectorize",
]  # fmt: skip
