"""LOOPer's search (M. Merouani et al., arXiv 2403.11522), to compare with on the same ground.

Its three phases with a beam of three, from the original order alone: fusion, repaired by shifting;
up to four unimodular matrices (interchange, reversal, 2-D skewing); then one loop of the outermost
three on threads, tiles of 32, 64 or 128 in two or three dimensions, the innermost loop unrolled.
No explicit vectors, no register tiles, no packing, one level of tiles. Code generator, legality and
cost model are those of perfkit's own search. Marks come last here, since a transform after a mark
could only be refused; LOOPer parallelizes before it tiles, with the same schedules in the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise, product

from perfkit.analysis.dependences import Analysis
from perfkit.cost.scorer import Scorer
from perfkit.ir.tree import Loop, loops
from perfkit.schedule.base import chain
from perfkit.schedule.seeds import Seed
from perfkit.schedule.steps import Steps
from perfkit.schedule.transforms import (
    Interchange,
    Parallelize,
    Reverse,
    Skew,
    Tile,
    Unroll,
)
from perfkit.search.beam import Beam, Level, Plan, Ranked
from perfkit.search.space import attempt, fusions

WIDTH = 3
MATRICES = 4
SIZES = (32, 64, 128)
UNROLLED = (4, 8, 16)
FACTORS = (1, 2, 3)
OUTERMOST = 3


def search(analysis: Analysis, scorer: Scorer, plan: Plan, original: Seed) -> list[Ranked]:
    """All schedules that LOOPer's procedure scores; of ``plan`` only the budgets count."""
    matrices = [Level("unimodular", unimodular, 0.1) for _ in range(MATRICES)]
    phases = (
        Level("fusion", fusions, 0.1),
        *matrices,
        Level("tile", tilings, 0.25),
        Level("parallel", parallels, 0.1),
        Level("unroll", unrolls, 0.15),
    )
    limits = Plan(WIDTH, WIDTH, plan.candidates, plan.seconds)
    return Beam(analysis, scorer, phases, Steps.copy, limits).run([original])


def unimodular(at: Steps) -> Iterator[Steps]:
    """One elementary matrix on the loops of a perfect nest."""
    for band in _nests(at):
        names = [loop.name for loop in band]
        for a, b in combinations(names, 2):
            yield from attempt(at, Interchange(a, b))
        for outer, inner in pairwise(names):
            for factor in FACTORS:
                yield from attempt(at, Skew(inner, outer, factor))
        for name in names:
            yield from attempt(at, Reverse(name))


def tilings(at: Steps) -> Iterator[Steps]:
    """Two or three adjacent loops of a nest, all combinations of sizes."""
    for band in _nests(at):
        names = [loop.name for loop in band]
        for count in (2, 3):
            for k in range(len(names) - count + 1):
                for sizes in product(SIZES, repeat=count):
                    pairs = zip(names[k : k + count], sizes, strict=True)
                    tiled = next(attempt(at, Tile.of(pairs)), None)
                    if tiled is None:
                        break  # no size of these loops is legal
                    yield tiled


def parallels(at: Steps) -> Iterator[Steps]:
    """One of the three outermost loops of every nest on threads."""
    for depth in range(OUTERMOST):
        trial = at.copy()
        for band in _nests(at):
            if depth < len(band):
                trial.attempt(Parallelize(band[depth].name))
        if len(trial.done) > len(at.done):
            yield trial


def unrolls(at: Steps) -> Iterator[Steps]:
    """All innermost loops by one factor."""
    for factor in UNROLLED:
        trial = at.copy()
        for loop in loops(at.tree):
            if not loops(loop.body):
                trial.attempt(Unroll(loop.name, factor))
        yield trial


def _nests(at: Steps) -> list[tuple[Loop, ...]]:
    """The maximal perfect nests."""
    inside: set[str] = set()
    found: list[tuple[Loop, ...]] = []
    for loop in loops(at.tree):
        if loop.name not in inside:
            band = chain(at.tree, loop.name)
            inside |= {x.name for x in band}
            found.append(band)
    return found


__all__ = ["search"]
