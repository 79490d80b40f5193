"""The search: a beam over transforms, level by level, from many schedules to start from.

Every level has one kind of move (:mod:`perfkit.search.space`). Its children, proved legal, are
scored together by one :class:`~perfkit.cost.scorer.Scorer` and the best go on, with their parents:
doing nothing is always a choice. Orders are scored as they would run, that is with the marks that a
compiler would set. At most a few of one shape go on, so that one good idea does not crowd out the
others. The number of schedules and the time are bounded; each level has its share of both, and what
a level leaves over goes to those after it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from perfkit import log
from perfkit.analysis.dependences import Analysis
from perfkit.cost.scorer import Score, Scorer
from perfkit.errors import BudgetExceeded, ScheduleError
from perfkit.ir.tree import Node as Tree
from perfkit.schedule.pack import Pack
from perfkit.schedule.relayout import Relayout
from perfkit.schedule.seeds import Seed
from perfkit.schedule.steps import Steps
from perfkit.schedule.transforms import StripMine, Tile
from perfkit.search import space
from perfkit.search.space import Move

Clock = Callable[[], float]


@dataclass(frozen=True)
class Plan:
    """How far to search.

    Attributes:
        width: schedules that go on from level to level.
        each: of one shape at most.
        candidates: schedules that are scored at most, the seeds apart.
        seconds: time for proving and scoring them.
        pluto: whether the scheduler's orders are among the seeds.
    """

    width: int = 16
    each: int = 4
    candidates: int = 800
    seconds: float = 1.0
    pluto: bool = True


@dataclass(frozen=True)
class Level:
    """A kind of move, tried on orders without marks (``bare``) or on finished schedules.

    ``share`` is its part of the search's time.
    """

    name: str
    move: Move
    share: float
    bare: bool = True


@dataclass(frozen=True)
class Ranked:
    """A schedule and its predicted time; ``origin`` says how it came about."""

    seed: Seed
    score: Score
    origin: str = "seed"


@dataclass(frozen=True)
class _Node:
    """``bare`` is the order that order moves go on from, None for a schedule that is complete."""

    ranked: Ranked
    bare: Steps | None
    done: Steps
    root: str


def levels(simd_bytes: int) -> tuple[Level, ...]:
    """The levels of perfkit's own search."""
    return (
        Level("structure", space.structures, 0.12),
        Level("structure", space.structures, 0.08),
        Level("order", space.orders, 0.16),
        Level("tile", space.tilings, 0.26),
        Level("resize", space.resizes, 0.14, bare=False),
        Level("parallel", space.parallels, 0.08, bare=False),
        Level("vector", partial(space.vectors, simd_bytes=simd_bytes), 0.08, bare=False),
        Level("repeat", space.repeats, 0.08, bare=False),
    )


@dataclass
class Beam:
    """One search. ``finish`` completes an order for scoring."""

    analysis: Analysis
    scorer: Scorer
    levels: Sequence[Level]
    finish: Callable[[Steps], Steps]
    plan: Plan = field(default_factory=Plan)
    clock: Clock = time.monotonic

    def run(self, seeds: Sequence[Seed]) -> list[Ranked]:
        """All schedules that were scored, seeds first, then in the order of their finding."""
        began = self.clock()
        self._seen: set[tuple[int, Tree, bool]] = set()
        self._numbers: Counter[str] = Counter()
        nodes = self._roots(seeds)
        found = [n.ranked for n in nodes]
        limit, share = len(found), 0.0
        for level in self.levels:
            share += level.share
            until = began + share * self.plan.seconds
            most = limit + round(share * self.plan.candidates) - len(found)
            children = self._children(level, nodes, until, most)
            found += [c.ranked for c in children]
            nodes = self._best([*nodes, *children])
            log.get("search").debug("%s: %d schedules", level.name, len(children))
        return list({id(r.seed): r for r in found}.values())

    def _roots(self, seeds: Sequence[Seed]) -> list[_Node]:
        roots: list[_Node] = []
        scores = self.scorer.score([s.state for s in seeds])
        for seed, score in zip(seeds, scores, strict=True):
            done = Steps(seed.state, self.analysis, seed.steps)
            node = _Node(Ranked(seed, score), None, done, seed.name)
            self._fresh(done, False)
            bare = space.unmarked(done) if _is_plain(seed) else None
            if bare is not None and self._fresh(bare, True):
                node = replace(node, bare=bare)
            roots.append(node)
        return roots

    # -- one level -------------------------------------------------------------------------------

    def _children(
        self, level: Level, nodes: Sequence[_Node], until: float, most: int
    ) -> list[_Node]:
        """New schedules, by turns from each node so that all of them get to try something."""
        sources = [
            (n, self._moves(level, start)) for n in nodes
            if (start := n.bare if level.bare else n.done) is not None
        ]  # fmt: skip
        made: list[tuple[_Node, Steps | None, Steps]] = []
        while sources and len(made) < most and self.clock() < until:
            left = []
            for parent, moves in sources:
                child = next(moves, None)
                if child is None:
                    continue
                left.append((parent, moves))
                made += [(parent, bare, done) for bare, done in self._made(level, child)]
                if len(made) >= most or self.clock() >= until:
                    break
            sources = left
        scores = self.scorer.score([done.state for _, _, done in made])
        return [
            _Node(
                Ranked(self._named(parent.root, done), score, level.name), bare, done, parent.root
            )
            for (parent, bare, done), score in zip(made, scores, strict=True)
        ]

    def _moves(self, level: Level, start: Steps) -> Iterator[Steps]:
        try:
            yield from level.move(start)
        except (BudgetExceeded, ScheduleError) as error:
            log.get("search").info("%s: no more moves: %s", level.name, error)

    def _made(self, level: Level, child: Steps) -> Iterator[tuple[Steps | None, Steps]]:
        """What goes on and what is scored, unless it was met before."""
        if not level.bare:
            if self._fresh(child, False):
                yield None, child
            return
        if not self._fresh(child, True):
            return
        try:
            done = self.finish(child)
        except (BudgetExceeded, ScheduleError) as error:
            log.get("search").info("%s: cannot be finished: %s", level.name, error)
            return
        self._fresh(done, False)
        yield child, done

    def _fresh(self, steps: Steps, bare: bool) -> bool:
        key = (id(self.analysis.polyhedra(steps.state.scop)), steps.tree, bare)
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def _named(self, root: str, done: Steps) -> Seed:
        self._numbers[root] += 1
        return Seed(f"{root}~{self._numbers[root]}", done.done, done.state)

    def _best(self, nodes: Sequence[_Node]) -> list[_Node]:
        """The ``width`` best, at most ``each`` of one shape while there are others."""
        order = sorted(nodes, key=lambda n: n.ranked.score.seconds)
        shapes: Counter[tuple[int, str]] = Counter()
        kept: list[_Node] = []
        rest: list[_Node] = []
        for node in order:
            state = node.done.state
            shape = (id(self.analysis.polyhedra(state.scop)), space.skeleton(state.tree))
            shapes[shape] += 1
            (kept if shapes[shape] <= self.plan.each else rest).append(node)
        return [*kept, *rest][: self.plan.width]


def _is_plain(seed: Seed) -> bool:
    """Whether order moves make sense: nothing is tiled, and no copy was made for tiles."""
    return not any(isinstance(s, Tile | StripMine | Pack | Relayout) for s in seed.steps)


def beam(
    analysis: Analysis, scorer: Scorer, simd_bytes: int, plan: Plan, seeds: Sequence[Seed]
) -> list[Ranked]:
    """perfkit's own search from ``seeds``."""
    finish = partial(space.finish, simd_bytes=simd_bytes)
    return Beam(analysis, scorer, levels(simd_bytes), finish, plan).run(seeds)


__all__ = ["Beam", "Level", "Plan", "Ranked", "beam", "levels"]
