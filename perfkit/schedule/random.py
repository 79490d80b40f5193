"""Random legal scripts: for tests of the whole system, the fuzz, and training data."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random

from perfkit.analysis.dependences import Analysis
from perfkit.errors import ScheduleError
from perfkit.ir.affine import Affine
from perfkit.ir.tree import Leaf, Loop, Node, Sequence, depth_of, loops, statements, walk
from perfkit.schedule.base import TreeTransform, chain, label, tidy
from perfkit.schedule.diamond import Diamond
from perfkit.schedule.loops import Interchange, Reverse, Shift, Skew, Wavefront
from perfkit.schedule.marks import Jam, Parallelize, Unroll, Vectorize
from perfkit.schedule.random_storage import take_storage_step
from perfkit.schedule.state import State, Transform
from perfkit.schedule.structure import Distribute, Embed, Fuse, Reorder, solve_shift
from perfkit.schedule.tiling import StripMine, Tile

Sizes = tuple[int, ...]

TILE_SIZES: Sizes = (2, 3, 4, 5, 8, 16, 32, 64)
FACTORS = (2, 3, 4, 8)
MAX_DEPTH = 9
"""Loops around a statement beyond which nothing is tiled any more."""

Draw = Callable[["_Drawer"], TreeTransform | None]


class _Drawer:
    """Proposals for one state; each may be None where nothing of the kind fits."""

    def __init__(
        self, state: State, rng: Random, analysis: Analysis, tile_sizes: Sizes = TILE_SIZES
    ) -> None:
        self.state = state
        self.rng = rng
        self.analysis = analysis
        self.tile_sizes = tile_sizes
        self.tree: Node = tidy(state.tree)
        self.loops = loops(self.tree)
        self.sequences = [n for n in walk(self.tree) if isinstance(n, Sequence)]

    def loop(self) -> Loop | None:
        return self.rng.choice(self.loops) if self.loops else None

    def band(self, longest: int) -> tuple[Loop, ...]:
        loop = self.loop()
        return chain(self.tree, loop.name)[:longest] if loop else ()

    def fuse(self) -> TreeTransform | None:
        pairs = []
        for sequence in self.sequences:
            inside = [c.name for c in sequence.children if isinstance(c, Loop)]
            pairs += list(pairwise(inside))
            if len(inside) > 2:
                pairs.append((inside[0], inside[-1]))
        if not pairs:
            return None
        a, b = self.rng.choice(pairs)
        shift = self.rng.choice((0, 0, 0, 1, 2, -1))
        if self.rng.random() < 0.7:
            shift = solve_shift(self.state, self.analysis, a, b) or 0
        return Fuse(a, b, shift)

    def distribute(self) -> TreeTransform | None:
        found = [x for x in self.loops if isinstance(x.body, Sequence)]
        if not found:
            return None
        loop = self.rng.choice(found)
        assert isinstance(loop.body, Sequence)
        if self.rng.random() < 0.5:
            return Distribute(loop.name)
        return Distribute(loop.name, self.rng.choice(statements(loop.body.children[0])))

    def interchange(self) -> TreeTransform | None:
        band = self.band(4)
        if len(band) < 2:
            return None
        a, b = self.rng.sample(band, 2)
        return Interchange(a.name, b.name)

    def reverse(self) -> TreeTransform | None:
        loop = self.loop()
        return Reverse(loop.name) if loop else None

    def skew(self) -> TreeTransform | None:
        loop = self.loop()
        if loop is None:
            return None
        inside = [x for x in loops(loop.body) if set(statements(x)) <= set(statements(loop))]
        if not inside:
            return None
        inner = self.rng.choice(inside)
        return Skew(inner.name, loop.name, self.rng.choice((1, 1, 1, 2, -1, -2)))

    def wavefront(self) -> TreeTransform | None:
        band = self.band(3)
        return Wavefront(band[0].name, self.rng.choice(band[1:]).name) if len(band) > 1 else None

    def diamond(self) -> TreeTransform | None:
        band = self.band(2)
        if len(band) < 2 or depth_of(self.tree) + 2 > MAX_DEPTH:
            return None
        return Diamond(band[0].name, band[1].name, self.rng.choice(self.tile_sizes))

    def shift(self) -> TreeTransform | None:
        loop = self.loop()
        if loop is None:
            return None
        amount = Affine.constant(self.rng.choice((1, 2, 3, -1, -2)))
        if self.state.scop.parameters and self.rng.random() < 0.2:
            amount = amount + Affine.variable(self.rng.choice(self.state.scop.parameters))
        return Shift(self.rng.choice(statements(loop)), loop.name, amount)

    def tile(self) -> TreeTransform | None:
        band = self.band(self.rng.choice((2, 2, 3, 3, 1)))
        if not band or depth_of(self.tree) + len(band) > MAX_DEPTH:
            return None
        return Tile.of([(x.name, self.rng.choice(self.tile_sizes)) for x in band])

    def strip_mine(self) -> TreeTransform | None:
        loop = self.loop()
        if loop is None or depth_of(self.tree) >= MAX_DEPTH:
            return None
        return StripMine(loop.name, self.rng.choice(self.tile_sizes))

    def embed(self) -> TreeTransform | None:
        pairs = [
            (leaf.statement, loop.name)
            for sequence in self.sequences
            for leaf in sequence.children
            for loop in sequence.children
            if isinstance(leaf, Leaf) and isinstance(loop, Loop)
        ]
        if not pairs:
            return None
        return Embed(*self.rng.choice(pairs), self.rng.choice(("first", "last")))

    def reorder(self) -> TreeTransform | None:
        if not self.sequences:
            return None
        names = [label(c) for c in self.rng.choice(self.sequences).children]
        self.rng.shuffle(names)
        return Reorder(*names)

    def parallelize(self) -> TreeTransform | None:
        loop = self.loop()
        return Parallelize(loop.name) if loop else None

    def vectorize(self) -> TreeTransform | None:
        innermost = [x for x in self.loops if not loops(x.body)]
        if not innermost:
            return None
        return Vectorize(self.rng.choice(innermost).name, self.rng.choice((2, 4, 8)))

    def unroll(self) -> TreeTransform | None:
        loop = self.loop()
        return Unroll(loop.name, self.rng.choice(FACTORS)) if loop else None

    def jam(self) -> TreeTransform | None:
        outer = [x for x in self.loops if loops(x.body)]
        return Jam(self.rng.choice(outer).name, self.rng.choice(FACTORS)) if outer else None


ORDER: tuple[tuple[Draw, int], ...] = (
    (_Drawer.fuse, 6), (_Drawer.distribute, 3), (_Drawer.interchange, 5), (_Drawer.reverse, 2),
    (_Drawer.skew, 4), (_Drawer.wavefront, 2), (_Drawer.shift, 3), (_Drawer.tile, 5),
    (_Drawer.strip_mine, 1), (_Drawer.embed, 4), (_Drawer.reorder, 2), (_Drawer.diamond, 1),
)  # fmt: skip
MARKS: tuple[tuple[Draw, int], ...] = (
    (_Drawer.parallelize, 3), (_Drawer.vectorize, 3), (_Drawer.unroll, 1), (_Drawer.jam, 2),
)  # fmt: skip


def propose(
    state: State,
    rng: Random,
    analysis: Analysis,
    marks: bool = False,
    tile_sizes: Sizes = TILE_SIZES,
) -> TreeTransform | None:
    """One random transform that fits the tree, legal or not; None when the draw found nothing."""
    kinds = MARKS if marks else ORDER
    draw = rng.choices([d for d, _ in kinds], [w for _, w in kinds])[0]
    return draw(_Drawer(state, rng, analysis, tile_sizes))


def random_script(
    state: State,
    rng: Random,
    steps: int,
    analysis: Analysis | None = None,
    marks: int | None = None,
    tile_sizes: Sizes = TILE_SIZES,
    refused: Callable[[State, TreeTransform], None] | None = None,
    storage: int = 0,
) -> tuple[tuple[Transform, ...], State]:
    """Up to ``steps`` legal order transforms, then up to ``marks`` legal marks (steps / 2).

    Marks come last because they bind what follows. Up to ``storage`` legal storage steps stand
    before and as many after the order transforms. ``refused`` is told of every illegal draw of the
    other kinds. The same ``rng`` state gives the same script.
    """
    analysis = analysis or Analysis()
    taken: list[Transform] = []

    def order(state: State, count: int, mark: bool) -> State:
        wanted = len(taken) + count
        for _ in range(4 * count):
            if len(taken) == wanted:
                break
            step = propose(state, rng, analysis, mark, tile_sizes)
            if step is None:
                continue
            try:
                state = step.apply(state, analysis)
            except ScheduleError:
                if refused is not None:
                    refused(state, step)
            else:
                taken.append(step)
        return state

    def store(state: State) -> State:
        for _ in range(storage):
            found = take_storage_step(state, rng, analysis)
            if found is not None:
                taken.append(found[0])
                state = found[1]
        return state

    state = order(store(state), steps, False)
    state = order(store(state), (steps + 1) // 2 if marks is None else marks, True)
    return tuple(taken), state


__all__ = ["propose", "random_script"]
