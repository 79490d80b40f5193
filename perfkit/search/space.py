"""The moves of the search: from one schedule to those that one decision leads to.

A move yields scripts that are already proved legal. *Order* moves work on trees without marks,
*mark* moves on finished schedules; :func:`finish` turns the first into the second as a compiler
would. Each generator tries what promises most first, since the search stops it when time is up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations, pairwise

from perfkit.errors import ScheduleError
from perfkit.ir.tree import (
    Leaf,
    Loop,
    Node,
    Sequence,
    depth_of,
    enclosing,
    loops,
    map_loops,
    walk,
)
from perfkit.schedule import script
from perfkit.schedule.base import chain, tidy
from perfkit.schedule.locality import is_long, lanes
from perfkit.schedule.shape import mark
from perfkit.schedule.state import State, Transform
from perfkit.schedule.steps import Steps
from perfkit.schedule.transforms import (
    Distribute,
    Embed,
    Fuse,
    Interchange,
    Jam,
    Parallelize,
    Reverse,
    Skew,
    Tile,
    Unmark,
    Unroll,
    Vectorize,
    Wavefront,
    solve_shift,
)

Move = Callable[[Steps], Iterator[Steps]]

DEEPEST = 9
"""Loops around a statement beyond which nothing is tiled any more."""

BAND = 4
"""Loops of a perfect nest that are permuted and tiled together at most."""

TILES = ((32, 64), (64, 64), (32, 256), (16, 128), (128, 128), (32, 32), (8, 256))
"""Sizes to try: of the innermost loop of a band (second), and of the others (first)."""

COARSE = (128, 512)
"""Of the outer level where two are tiled: the others, and the innermost loop."""

FACTORS = (2, 4, 8)

MOST_COPIES = 320
"""Accesses that jamming and unrolling may make of one statement; beyond, compilers take seconds."""

MARKING = (Parallelize, Vectorize, Unroll, Jam, Unmark)
LEAST_TILE = 8
"""Tiles of wavefronts are not made smaller than this."""

_RESIZED = re.compile(r"^(Tile|StripMine|Vectorize|Jam)\(")
_NUMBER = re.compile(r"(?<=[=, (])\d+")


def finish(at: Steps, simd_bytes: int) -> Steps:
    """The order with its outermost parallel loops on threads and its innermost loops in lanes."""
    done = at.copy()
    mark(done, simd_bytes)
    return done


def unmarked(at: Steps) -> Steps:
    """The same order without its marks: the script without the steps that set them."""
    steps = tuple(s for s in at.done if not isinstance(s, MARKING))
    tree = map_loops(at.tree, lambda loop: replace(loop, marks=()))
    return Steps(at.state.with_tree(tree), at.analysis, steps)


def skeleton(node: Node) -> str:
    """The shape of a tree: nesting, threads and tiles, but no names and no sizes."""
    match node:
        case Leaf():
            return "."
        case Sequence(children=children):
            return f"[{' '.join(map(skeleton, children))}]"
        case Loop():
            tiled = any(e.divs and not e.terms for _, e in node.schedule)
            kind = "T" if tiled else "L"
            return f"{kind}{'p' * (node.mark('parallel') is not None)}{skeleton(node.body)}"


def copies(state: State) -> float:
    """The most accesses that the code of one statement has, vectors of four counted once."""
    most = 0.0
    for statement in state.scop.statements:
        count = 1.0 + len(statement.reads)
        for loop in enclosing(state.tree, statement.name):
            for found in loop.marks:
                if found.kind != "parallel":
                    count *= max(1.0, found.factor / (4 if found.kind == "vector" else 1))
        most = max(most, count)
    return most


# -- order -------------------------------------------------------------------------------------


def fusions(at: Steps) -> Iterator[Steps]:
    """Fuse two loops of a sequence, shifted as far as the dependences ask."""
    for sequence in _sequences(at.tree):
        inside = [c.name for c in sequence.children if isinstance(c, Loop)]
        pairs = list(combinations(inside, 2)) if len(inside) <= BAND else list(pairwise(inside))
        for a, b in pairs:
            shift = solve_shift(at.state, at.analysis, a, b)
            if shift is not None:
                yield from attempt(at, Fuse(a, b, shift))


def structures(at: Steps) -> Iterator[Steps]:
    """Fusion, its inverse, and statements sunk into the loop beside them."""
    yield from fusions(at)
    for loop in loops(at.tree):
        if isinstance(loop.body, Sequence):
            yield from attempt(at, Distribute(loop.name))
    for sequence in _sequences(at.tree):
        for first, second in pairwise(sequence.children):
            if isinstance(first, Leaf) and isinstance(second, Loop):
                yield from attempt(at, Embed(first.statement, second.name, "first"))
            if isinstance(first, Loop) and isinstance(second, Leaf):
                yield from attempt(at, Embed(second.statement, first.name, "last"))


def orders(at: Steps) -> Iterator[Steps]:
    """Unimodular changes of a perfect nest: interchange; skewing where that frees it; reversal.

    Three loops are skewed at once where the outermost, a time loop, moves both others.
    """
    for band in _bands(at.tree):
        names = [loop.name for loop in band]
        stuck = False
        for a, b in combinations(names, 2):
            found = list(attempt(at, Interchange(a, b)))
            stuck = stuck or not found
            yield from found
        if stuck:
            for outer, inner in pairwise(names):
                for factor in (1, 2, -1):
                    yield from attempt(at, Skew(inner, outer, factor))
            for outer, second, third in zip(names, names[1:], names[2:], strict=False):
                for factor in (1, 2):
                    both = Skew(second, outer, factor), Skew(third, outer, factor)
                    yield from attempt(at, *both)
        for name in names:
            yield from attempt(at, Reverse(name))


def tilings(at: Steps) -> Iterator[Steps]:
    """Tiles of a perfect nest in one or two levels.

    Wavefronts come from the seeds alone, whose tiles fit the skewing: others can take isl minutes.
    """
    for band in _bands(at.tree):
        for names in _windows([loop.name for loop in band]):
            if depth_of(at.tree) + len(names) > DEEPEST:
                continue
            for sizes in TILES:
                tiled = next(attempt(at, Tile.of(_sized(names, sizes))), None)
                if tiled is None:
                    break  # not permutable: no size will do
                yield tiled
            else:
                levels = Tile.of(_sized(names, COARSE)), Tile.of(_sized(names, TILES[0]))
                if depth_of(at.tree) + 2 * len(names) <= DEEPEST:
                    yield from attempt(at, *levels)


def _sized(names: list[str], sizes: tuple[int, int]) -> list[tuple[str, int]]:
    others, innermost = sizes
    return [(n, innermost if n == names[-1] else others) for n in names]


def _windows(names: list[str]) -> Iterator[list[str]]:
    """The whole band, and the innermost part of it."""
    if len(names) > 1:
        yield names
    for count in (3, 2):
        if count < len(names):
            yield names[-count:]


# -- marks -------------------------------------------------------------------------------------


def resizes(at: Steps) -> Iterator[Steps]:
    """The same script with another number in one of its tiles, lanes or copies."""
    start = State.start(at.state.original, at.state.fp)
    waves = any(isinstance(step, Wavefront) for step in at.done)
    for k, step in enumerate(at.done):
        for text in _resized(str(step), waves):
            steps = (*at.done[:k], *script.parse(text), *at.done[k + 1 :])
            try:
                state = script.replay(start, steps, at.analysis)
            except ScheduleError:
                continue
            yield Steps(state, at.analysis, steps)


def _resized(text: str, waves: bool) -> Iterator[str]:
    """A step with one number doubled or halved; tiles of wavefronts are halved all at once.

    Wavefronts of tiles with other ratios than those that the skewing asks for, or of larger ones,
    have bounds that take isl minutes and are outside of what its count of operations sees.
    """
    if not _RESIZED.match(text):
        return
    if waves and text.startswith("Tile"):
        if all(int(spot.group()) > LEAST_TILE for spot in _NUMBER.finditer(text)):
            yield _NUMBER.sub(lambda spot: str(int(spot.group()) // 2), text)
        return
    for spot in _NUMBER.finditer(text):
        for other in (2 * int(spot.group()), int(spot.group()) // 2):
            if other >= 2:
                yield text[: spot.start()] + str(other) + text[spot.end() :]


def parallels(at: Steps) -> Iterator[Steps]:
    """Another loop of a nest on threads, or none."""
    for loop in loops(at.tree):
        if loop.mark("parallel") is None:
            continue
        bare = next(attempt(at, *_without(loop, "parallel")), None)
        if bare is None:
            continue
        for other in loops(loop.body):
            if is_long(at.dependences.polyhedra, other):
                yield from attempt(bare, Parallelize(other.name))
        yield bare
    for loop in loops(at.tree):
        if not any(x.mark("parallel") for x in loops(loop)) and not _under(at.tree, loop.name):
            yield from attempt(at, Parallelize(loop.name))


def vectors(at: Steps, simd_bytes: int) -> Iterator[Steps]:
    """Innermost loops in lanes, twice as many lanes, or none."""
    for loop in loops(at.tree):
        found = loop.mark("vector")
        if found is not None:
            yield from attempt(at, Vectorize(loop.name, 2 * found.factor))
            yield from attempt(at, *_without(loop, "vector"))
        elif not loops(loop.body):
            yield from attempt(at, Vectorize(loop.name, lanes(at.state.scop, loop, simd_bytes)))


def repeats(at: Steps) -> Iterator[Steps]:
    """Register tiles: a loop outside the innermost one jammed; innermost loops unrolled."""
    for loop in loops(at.tree):
        if depth_of(loop.body) == 1 and loop.mark("vector") is None:
            for factor in FACTORS:
                yield from attempt(at, Jam(loop.name, factor))
        if not loops(loop.body):
            yield from attempt(at, Unroll(loop.name, 4))


def _without(loop: Loop, kind: str) -> list[Transform]:
    """Steps that take one mark of a loop away and leave its others."""
    makers: dict[str, Callable[[str, int], Transform]] = {
        "vector": Vectorize, "jam": Jam, "unroll": Unroll
    }  # fmt: skip
    steps: list[Transform] = [Unmark(loop.name)]
    for found in loop.marks:
        if found.kind == kind:
            continue
        if found.kind == "parallel":
            steps.append(Parallelize(loop.name))
        elif found.kind in makers:
            steps.append(makers[found.kind](loop.name, found.factor))
    return steps


def _under(tree: Node, name: str) -> bool:
    """Whether a loop around this one runs on threads."""
    return any(
        any(x.name == name for x in loops(loop.body))
        for loop in loops(tree) if loop.mark("parallel")
    )  # fmt: skip


# -- helpers -----------------------------------------------------------------------------------


def attempt(at: Steps, *steps: Transform) -> Iterator[Steps]:
    """The script with these steps added, when all are legal and the code stays short."""
    trial = at.copy()
    if trial.attempt(*steps) and copies(trial.state) <= MOST_COPIES:
        yield trial


def _sequences(tree: Node) -> list[Sequence]:
    return [n for n in walk(tidy(tree)) if isinstance(n, Sequence)]


def _bands(tree: Node) -> Iterator[tuple[Loop, ...]]:
    """The maximal perfect nests of at least two loops, outermost loops first."""
    inside: set[str] = set()
    for loop in loops(tidy(tree)):
        if loop.name not in inside:
            band = chain(tidy(tree), loop.name)
            inside |= {x.name for x in band}
            if len(band) > 1:
                yield band[:BAND]


__all__ = [
    "MOST_COPIES", "Move", "attempt", "copies", "finish", "fusions", "orders", "parallels",
    "repeats", "resizes", "skeleton", "structures", "tilings", "unmarked", "vectors",
]  # fmt: skip
