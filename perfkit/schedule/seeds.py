"""Schedules to start from: what the compiler would try before any search.

Every seed is a script: replayable text whose steps were each proved legal. There are three
families. ``original`` changes nothing. ``parallel`` keeps the order and marks loops. The others
start from an order that isl's scheduler found (:mod:`perfkit.schedule.pluto`), and tile it, run it
as wavefronts, and mark it. ``-time`` and ``-diamond`` forms fit blocks of several time
steps to the cache, ``-jam`` forms run recurrences side by side. Each comes with and without
expanded temporaries and split statements, where that differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from perfkit import log
from perfkit.analysis.dependences import Analysis
from perfkit.errors import BudgetExceeded, ScheduleError
from perfkit.ir.tree import Node
from perfkit.schedule import pluto
from perfkit.schedule.autosplit import auto_split
from perfkit.schedule.blocking import Sizes as Blocks
from perfkit.schedule.blocking import block
from perfkit.schedule.locality import Locality
from perfkit.schedule.panels import panels
from perfkit.schedule.pluto import Found, Options
from perfkit.schedule.recurrences import jam_recurrences
from perfkit.schedule.rows import jam_rows
from perfkit.schedule.script import show
from perfkit.schedule.shape import (
    Sizes,
    best_last,
    coincident_first,
    diamond_as,
    mark,
    tile_as,
    tile_band,
)
from perfkit.schedule.state import State, Transform
from perfkit.schedule.steps import Steps
from perfkit.schedule.storage import auto_expand, auto_snapshot
from perfkit.schedule.timetile import FORMS, diamond_sizes, is_time_band, shapes
from perfkit.schedule.transforms import Order
from perfkit.schedule.unsink import unsink

FUSIONS = ("min", "smart", "max")

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Seed:
    """A named script and the state that it leads to."""

    name: str
    steps: tuple[Transform, ...]
    state: State

    @property
    def script(self) -> str:
        return show(self.steps)


def original(state: State) -> Seed:
    """The program's own order."""
    return Seed("original", (), state)


def parallel(base: Steps, simd_bytes: int, everywhere: bool = False) -> Steps:
    """The order as it is; in every nest the outermost parallel loop on threads, and lanes."""
    steps = base.copy()
    mark(steps, simd_bytes, everywhere)
    return steps


def untiled(base: Steps, found: Found, simd_bytes: int) -> Steps:
    """A scheduler's order with its loops marked."""
    steps = base.copy()
    best = best_last(coincident_first(found), Locality.of(steps.state.scop, found.tree))
    steps.take(Order.of(unsink(steps.dependences, best.tree)))
    mark(steps, simd_bytes)
    return steps


def tiled(base: Steps, found: Found, simd_bytes: int, sizes: Sizes) -> Steps:
    """A scheduler's order with its permutable bands tiled, and its loops marked."""
    steps = base.copy()
    ordered = coincident_first(found)
    steps.take(Order.of(ordered.tree))
    for band in ordered.bands:
        if band.permutable and len(band.loops) > 1:
            tile_band(steps, band, sizes)
    mark(steps, simd_bytes)
    return steps


def timed(base: Steps, found: Found, simd_bytes: int, cache: int, form: str) -> Steps | None:
    """A scheduler's order with its time loops tiled for a cache; None when it has none."""
    steps = base.copy()
    steps.take(Order.of(found.tree))
    scop, tiled = steps.state.scop, False
    for band in found.bands:
        if is_time_band(scop, steps.tree, band):
            sizes = shapes(scop, steps.tree, band, cache)
            tiled |= form in sizes and tile_as(steps, band, sizes[form])
    if not tiled:
        return None
    mark(steps, simd_bytes)
    jam_recurrences(steps)
    return steps


def diamonds(base: Steps, found: Found, simd_bytes: int, sizes: Sizes) -> Steps | None:
    """A scheduler's order with its time loops tiled by diamonds; None where no diamonds fit.

    Within a tile one step of time follows the other, statement by statement, several rows at once.
    """
    steps = base.copy()
    steps.take(Order.of(found.tree))
    tiled = False
    for band in found.bands:
        if is_time_band(steps.state.scop, steps.tree, band):
            row = steps.trips(band.loops[-1], sizes.values)
            chosen = diamond_sizes(steps.state.scop, steps.tree, band, sizes.cache, row)
            tiled |= diamond_as(steps, band, chosen)
    if not tiled:
        return None
    mark(steps, simd_bytes)
    jam_rows(steps)
    return steps


def jammed(base: Steps, simd_bytes: int) -> Steps | None:
    """The order as it is with recurrences side by side; None when that is possible nowhere."""
    steps = parallel(base, simd_bytes)
    return steps if jam_recurrences(steps) else None


def blocked(base: Steps, found: Found | None, simd_bytes: int, sizes: Sizes) -> Steps:
    """An order, the present one without ``found``, blocked for caches and registers."""
    steps = base.copy()
    if found is not None:
        steps.take(Order.of(unsink(steps.dependences, coincident_first(found).tree)))
    blocks = Blocks(simd_bytes, sizes.cache, sizes.threads, sizes.values)
    done, state = block(steps.state, steps.analysis, blocks)
    return Steps(state, steps.analysis, (*steps.done, *done))


def paneled(base: Steps, found: Found, simd_bytes: int) -> Steps:
    """An order whose factorizations run block by block (:mod:`perfkit.schedule.panels`)."""
    steps = base.copy()
    steps.take(Order.of(unsink(steps.dependences, coincident_first(found).tree)))
    return panels(steps, Blocks(simd_bytes=simd_bytes))


def expanded(base: Steps) -> Steps:
    """The same program with its temporaries expanded where that frees loops."""
    steps = base.copy()
    for step in auto_expand(steps.state, steps.analysis):
        steps.take(step)
    return steps


def snapshot(base: Steps) -> Steps:
    """The same program with arrays copied first where sums read them in their old state."""
    steps = base.copy()
    for step in auto_snapshot(steps.state):
        steps.attempt(step)
    return steps


def split(base: Steps) -> Steps:
    """The same program with statements split where that frees parallel loops."""
    steps = base.copy()
    for step in auto_split(steps.state, steps.analysis):
        steps.take(step)
    return steps


def candidates(
    state: State,
    simd_bytes: int,
    analysis: Analysis | None = None,
    sizes: Sizes | None = None,
) -> list[Seed]:
    """All seeds, without duplicates; the original is always the first.

    ``simd_bytes`` is the width of a vector register. A seed that isl's budget does not allow, or
    that a step refuses, is left out, with a message in the log (topic ``seeds``).
    """
    found = [original(state)]
    seen = {(state.scop, state.tree)}
    for seed in _all(Steps(state, analysis or Analysis()), simd_bytes, sizes or Sizes()):
        key = (seed.state.scop, seed.state.tree)
        if key not in seen:
            seen.add(key)
            found.append(seed)
    return found


def _all(start: Steps, simd_bytes: int, sizes: Sizes) -> Iterator[Seed]:
    bases = [("", start)]
    free = _try("expansion", expanded, start)
    if free is not None and free.done:
        bases.append(("-expanded", free))
    before = _try("snapshots", snapshot, start)
    if before is not None and before.done:
        bases.append(("-snapshot", before))
    parts = _try("splitting", split, start)
    if parts is not None and parts.done:
        bases.append(("-split", parts))
    for suffix, base in bases:
        yield from _seed(f"parallel{suffix}", parallel, base, simd_bytes)
        yield from _seed(f"parallel-all{suffix}", parallel, base, simd_bytes, True)
        yield from _seed(f"parallel-jam{suffix}", jammed, base, simd_bytes)
        yield from _seed(f"block{suffix}", blocked, base, None, simd_bytes, sizes)
        orders: list[Node] = []
        alone = _try(f"dependences{suffix}", _is_connected, base)
        for fusion in ("smart",) if alone else FUSIONS:
            label = f"pluto-{fusion}{suffix}"
            order = _try(label, _schedule, base, Options(fusion))
            if order is None or order.tree in orders:
                continue
            orders.append(order.tree)
            yield from _seed(label, tiled, base, order, simd_bytes, sizes)
            for form in FORMS:
                yield from _seed(
                    f"{label}-time-{form}", timed, base, order, simd_bytes, sizes.cache, form
                )
            yield from _seed(f"{label}-diamond", diamonds, base, order, simd_bytes, sizes)
            yield from _seed(f"{label}-notile", untiled, base, order, simd_bytes)
            yield from _seed(f"{label}-block", blocked, base, order, simd_bytes, sizes)
            if alone or fusion == "min":  # a factorization is one nest, fused or not
                yield from _seed(f"{label}-panels", paneled, base, order, simd_bytes)


def _schedule(base: Steps, options: Options) -> Found:
    return pluto.schedule(base.dependences, options)


def _is_connected(base: Steps) -> bool:
    return pluto.is_connected(base.dependences)


def _seed(
    name: str, make: Callable[P, Steps | None], *args: P.args, **kwargs: P.kwargs
) -> Iterator[Seed]:
    steps = _try(name, make, *args, **kwargs)
    if steps is not None:
        yield Seed(name, steps.done, steps.state)


def _try(name: str, make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    try:
        return make(*args, **kwargs)
    except (BudgetExceeded, ScheduleError) as error:
        log.get("seeds").info("%s is left out: %s", name, error)
        return None


__all__ = [
    "FUSIONS",
    "Seed",
    "Sizes",
    "blocked",
    "candidates",
    "diamonds",
    "expanded",
    "jammed",
    "original",
    "parallel",
    "split",
    "tiled",
    "timed",
    "untiled",
]  # fmt: skip
