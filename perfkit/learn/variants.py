"""The schedules of a program that are worth measuring: good ones, random ones, near misses.

Random schedules alone miss the good tail, good ones alone do not show what ruins a schedule. So a
quarter comes from the seeds of the compiler, a third from random legal scripts, and the rest are
neighbours of what the ranking likes best: prefixes, other sizes, a step more, a step less.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from perfkit.analysis.dependences import Analysis
from perfkit.errors import BudgetExceeded, ScheduleError
from perfkit.ir import show as ir_text
from perfkit.ir.tree import show as show_tree
from perfkit.schedule import script as scripts
from perfkit.schedule import seeds
from perfkit.schedule.random import propose, random_script
from perfkit.schedule.shape import Sizes, mark
from perfkit.schedule.state import State, Transform
from perfkit.schedule.steps import Steps
from perfkit.schedule.transforms import Wavefront
from perfkit.search.space import MOST_COPIES, copies

SHARES = {"seed": 0.25, "random": 0.35, "neighbour": 0.40}
TILE_SIZES = (4, 8, 16, 32, 64, 128, 256)
FACTORS = (2, 3, 4, 6, 8, 16)
LONGEST = 14
"""Steps of a random script beyond which the code only grows."""

_RESIZED = re.compile(r"^(Tile|StripMine|Vectorize|Jam|Unroll|Wavefront)\(")

Rank = Callable[[State], float]


@dataclass(frozen=True)
class Variant:
    """One schedule; ``kind`` is "original", "seed", "random" or "neighbour"."""

    kind: str
    steps: tuple[Transform, ...]
    state: State

    @property
    def script(self) -> str:
        return scripts.show(self.steps)


class Variants:
    """Draws distinct legal schedules of one program."""

    def __init__(
        self, start: State, analysis: Analysis, simd_bytes: int, rng: Random, rank: Rank,
        sizes: Sizes,
    ) -> None:  # fmt: skip
        """``rank`` estimates the seconds of a state; smaller is better."""
        self.sizes = sizes
        self.start = start
        self.analysis = analysis
        self.simd_bytes = simd_bytes
        self.rng = rng
        self.rank = rank
        self.found: list[Variant] = []
        self._seen: set[tuple[str, str]] = set()
        self._texts: dict[int, str] = {}

    def draw(self, count: int) -> list[Variant]:
        """Up to ``count`` variants, the original first."""
        self._add("original", (), self.start)
        self._seeds(round(SHARES["seed"] * count))
        self._repeat(count - round(SHARES["neighbour"] * count), self._random)
        pool = sorted(self.found, key=lambda v: self._ranked(v.state))
        self._repeat(count, lambda: self._neighbour(pool))
        self.found[1:] = self.rng.sample(self.found[1:], len(self.found) - 1)
        return self.found

    def _ranked(self, state: State) -> float:
        try:
            return self.rank(state)
        except BudgetExceeded:
            return float("inf")

    def _repeat(self, wanted: int, attempt: Callable[[], None]) -> None:
        for _ in range(4 * max(0, wanted - len(self.found))):
            if len(self.found) >= wanted:
                return
            try:
                attempt()
            except (BudgetExceeded, ScheduleError):
                continue

    def _add(self, kind: str, steps: Sequence[Transform], state: State) -> None:
        scop = id(state.scop)
        if scop not in self._texts:
            self._texts[scop] = ir_text.text(state.scop)
        key = (self._texts[scop], show_tree(state.tree))
        if key not in self._seen and copies(state) <= MOST_COPIES:
            self._seen.add(key)
            self.found.append(Variant(kind, tuple(steps), state))

    # -- the kinds -------------------------------------------------------------------------------

    def _seeds(self, count: int) -> None:
        """Seeds with ordinary tile sizes, then some with others; chosen by chance."""
        wanted = len(self.found) + count
        outer, inner = self.rng.choice(TILE_SIZES), self.rng.choice(TILE_SIZES)
        for shape in (self.sizes, replace(self.sizes, outer=outer, inner=inner)):
            made = seeds.candidates(self.start, self.simd_bytes, self.analysis, shape)[1:]
            self.rng.shuffle(made)
            for seed in made:
                if len(self.found) < wanted:
                    self._add("seed", seed.steps, seed.state)

    def _random(self) -> None:
        steps, state = random_script(
            self.start, self.rng, self.rng.choice((0, 1, 2, 3, 4, 6)), self.analysis,
            0 if (tidy := self.rng.random() < 0.6) else self.rng.randint(1, 4), TILE_SIZES,
        )  # fmt: skip
        grown = Steps(state, self.analysis, steps)
        if tidy:  # as a compiler would mark this order
            mark(grown, self.simd_bytes, self.rng.random() < 0.3)
        self._add("random", grown.done, grown.state)

    def _neighbour(self, pool: Sequence[Variant]) -> None:
        """A change of one of the best-looking schedules."""
        base = pool[min(int(self.rng.expovariate(3.0 / len(pool))), len(pool) - 1)]
        steps = list(base.steps)
        kind = self.rng.random()
        if steps and kind < 0.25:
            changed: Sequence[Transform] = steps[: self.rng.randrange(len(steps))]
        elif steps and kind < 0.6:
            changed = self._resized(steps)
        elif len(steps) > 1 and kind < 0.7:
            k = self.rng.randrange(len(steps))
            changed = steps[:k] + steps[k + 1 :]
        else:
            self._extend(base)
            return
        self._add("neighbour", changed, scripts.replay(self.start, changed, self.analysis))

    def _extend(self, base: Variant) -> None:
        if len(base.steps) >= LONGEST:
            return
        step = propose(
            base.state, self.rng, self.analysis, self.rng.random() < 0.6, TILE_SIZES
        )
        if step is not None:
            state = step.apply(base.state, self.analysis)
            self._add("neighbour", (*base.steps, step), state)

    def _resized(self, steps: Sequence[Transform]) -> Sequence[Transform]:
        """The script with another number in one of its tiles, lanes or copies."""
        # Wavefronts of tiles of other ratios may take isl minutes.
        fixed = any(isinstance(s, Wavefront) for s in steps)
        places = [
            k for k, s in enumerate(steps)
            if _RESIZED.match(str(s)) and not (fixed and str(s).startswith(("Tile", "Wavefront")))
        ]  # fmt: skip
        if not places:
            raise ScheduleError("no step of the script has a size")
        k = self.rng.choice(places)
        text = str(steps[k])
        numbers = list(re.finditer(r"(?<=[=, (])\d+", text))
        if not numbers:
            raise ScheduleError("no step of the script has a size")
        spot = self.rng.choice(numbers)
        sizes = TILE_SIZES if text.startswith(("Tile", "StripMine")) else FACTORS
        new = text[: spot.start()] + str(self.rng.choice(sizes)) + text[spot.end() :]
        return [*steps[:k], *scripts.parse(new), *steps[k + 1 :]]


__all__ = ["SHARES", "Variant", "Variants"]
