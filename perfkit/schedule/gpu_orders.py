"""Orders worth mapping to a GPU: where many loops run in parallel below few that must not.

A GPU needs thousands of independent iterations, and can afford a host loop of launches around
them. So beside the present order and isl's, with and without fusion, permutable bands whose
outer loop carries dependences are tried with each of their loops outermost, and as wavefronts: the
outer loop runs over the sum of the band's loops, the others are parallel then (L. Lamport, *The
parallel execution of DO loops*, 1974).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from itertools import pairwise

from perfkit import log
from perfkit.errors import BudgetExceeded, ScheduleError
from perfkit.ir.affine import Affine
from perfkit.ir.tree import Loop, Node, Sequence, find_loop, walk
from perfkit.schedule import legality, pluto, seeds
from perfkit.schedule.base import change_expressions
from perfkit.schedule.pluto import Band, Found, Options
from perfkit.schedule.shape import coincident_first, permuted
from perfkit.schedule.steps import Steps
from perfkit.schedule.transforms import Fuse, Order

FUSIONS = ("min", "smart")


def orders(start: Steps) -> Iterator[tuple[str, Steps]]:
    """Named orders, the present one first; what isl's budget or a step refuses is left out."""
    yield "original", start
    bases = [("", start)]
    for suffix, make in (("-expanded", seeds.expanded), ("-split", seeds.split)):
        try:
            made = make(start)
        except (BudgetExceeded, ScheduleError) as error:
            log.get("seeds").info("GPU mapping: %s", error)
            continue
        if made.done:
            bases.append((suffix, made))
            yield f"original{suffix}", made
    for suffix, base in bases:
        seen: list[Node] = []
        for fusion in FUSIONS:
            try:
                found = pluto.schedule(base.dependences, Options(fusion))
            except (BudgetExceeded, ScheduleError) as error:
                log.get("seeds").info("GPU mapping: %s", error)
                continue
            for name, tree in _variants(found):
                if tree in seen:
                    continue
                seen.append(tree)
                steps = base.copy()
                if steps.attempt(Order.of(tree)):
                    yield f"pluto-{fusion}{name}{suffix}", steps
                    joined = fused(steps)
                    if joined is not None and joined.tree not in seen:
                        seen.append(joined.tree)
                        yield f"pluto-{fusion}{name}-fused{suffix}", joined


def fused(start: Steps) -> Steps | None:
    """Neighbouring nests that have equally many parallel loops in one, where these stay parallel.

    What one writes and the next one reads then stays in a program, and launches are saved. None
    where nothing can be joined.
    """
    steps = start.copy()
    refused: set[tuple[str, str]] = set()
    while (pair := _neighbours(steps, refused)) is not None:
        a, b = pair
        trial = steps.copy()
        fits = all(
            trial.attempt(Fuse(x, y)) and _parallel(trial, x) for x, y in zip(a, b, strict=True)
        )
        if fits:
            steps = trial
        else:
            refused.add((a[0], b[0]))
    return steps if len(steps.done) > len(start.done) else None


def _neighbours(
    steps: Steps, refused: Container[tuple[str, str]]
) -> tuple[list[str], list[str]] | None:
    """The parallel loops of two nests that stand next to each other."""
    for node in walk(steps.tree):
        if isinstance(node, Sequence):
            for first, second in pairwise(node.children):
                if isinstance(first, Loop) and isinstance(second, Loop):
                    a, b = _outer_parallel(steps, first), _outer_parallel(steps, second)
                    if a and len(a) == len(b) and (a[0], b[0]) not in refused:
                        return a, b
    return None


def _outer_parallel(steps: Steps, loop: Loop) -> list[str]:
    found: list[str] = []
    node: Node = loop
    while isinstance(node, Loop) and _parallel(steps, node.name):
        found.append(node.name)
        node = node.body
    return found


def _parallel(steps: Steps, loop: str) -> bool:
    return legality.is_parallel(steps.dependences, steps.tree, loop)


def _variants(found: Found) -> Iterator[tuple[str, Node]]:
    """The scheduler's order with parallel loops first, and what its bands also allow."""
    yield "", coincident_first(found).tree
    bands = [b for b in found.bands if b.permutable and len(b.loops) > 1 and not any(b.coincident)]
    if not bands:
        return
    yield "-waves", _waves(found.tree, bands)
    for k in range(1, max(len(b.loops) for b in bands)):
        yield f"-outer{k}", _rotated(found.tree, bands, k)


def _waves(tree: Node, bands: list[Band]) -> Node:
    """Every band's outer loop over the sum of its loops."""
    for band in bands:
        outer, *inner = band.loops
        for name in inner:
            tree = change_expressions(tree, outer, _plus(dict(find_loop(tree, name).schedule)))
    return tree


def _plus(added: Mapping[str, Affine]) -> Callable[[str, Affine], Affine]:
    return lambda statement, expression: expression + added[statement]


def _rotated(tree: Node, bands: list[Band], k: int) -> Node:
    """Every band's loop ``k`` outermost, the others as they are."""
    for band in bands:
        if k < len(band.loops):
            first = band.loops[k]
            tree = permuted(tree, band.loops, (first, *(n for n in band.loops if n != first)))
    return tree


__all__ = ["fused", "orders"]
