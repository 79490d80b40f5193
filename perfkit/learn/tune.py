"""``perfkit tune``: search and measure for as long as the user gives it, and keep what is found.

Rounds of a few schedules are compiled together and run in a child process, which may crash or hang.
The first round holds the finalists of :mod:`perfkit.search.auto`; later ones what looks best among
the rest, with predictions scaled by how the measured ones of the same kind came out, and then the
neighbours of the fastest. Every trial is stored at once, and the best after every round, so a kill
loses at most the round in flight.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from perfkit import config, log
from perfkit.codegen.target import Target
from perfkit.errors import MeasureError
from perfkit.learn.batch import compile_batch, generate
from perfkit.learn.measure import Job, Outcome, Runner
from perfkit.runtime.measure import Samples, machine_lock
from perfkit.runtime.signature import Signature
from perfkit.schedule.seeds import Seed
from perfkit.search.auto import Problem, candidates, finalists
from perfkit.search.beam import Plan, Ranked
from perfkit.search.choose import CLEAR, Choice, Row, reasons
from perfkit.search.compiled import Builder
from perfkit.search.decide import key_of, stored
from perfkit.search.store import Store

ROUND = 8
"""Schedules that are compiled and measured together."""

LONGEST_SEARCH = 3.0
"""Seconds of searching between two rounds."""

LONGEST_TEXT = 400_000
"""Characters of C of one schedule."""

Told = Callable[["Progress"], None]


@dataclass
class Progress:
    """What a session has done. ``best`` and ``original`` are seconds."""

    measured: int = 0
    resumed: int = 0
    bad: int = 0
    best: float = float("inf")
    original: float = float("inf")
    name: str = "original"

    def __str__(self) -> str:
        known = f" ({self.resumed} from before)" if self.resumed else ""
        times = self.original / self.best if self.best < float("inf") else 1.0
        return (
            f"{self.measured} schedules measured{known}, {self.bad} bad; "
            f"best {self.best * 1e3:.3f} ms ({times:.2f}x, {self.name})"
        )


@dataclass
class Tuner:
    """One session for one program at given sizes."""

    problem: Problem
    signature: Signature
    builder: Builder
    told: Told
    resume: bool = True
    progress: Progress = field(default_factory=Progress)

    @property
    def settings(self) -> config.Settings:
        return self.builder.settings

    def run(self, seconds: float) -> Choice:
        """Search and measure until the time is up, or Ctrl-C; the best is stored and returned.

        Raises MeasureError when the original order itself crashes, hangs or fails.
        """
        deadline = time.monotonic() + seconds
        self._begin()
        plan = Plan(32, 8, 4000, min(seconds / 4, LONGEST_SEARCH))
        self.pool = {r.seed.script: r for r in candidates(self.problem, "beam", plan)}
        for script, (status, taken) in self.known.items():
            if script in self.pool:
                self._note(self.pool[script], Outcome(status, (taken,) if taken else ()))
        first = finalists(list(self.pool.values()), ROUND)
        with Runner(patience=max(6.0, seconds)) as runner:
            try:
                self._measure(first, runner)
                while time.monotonic() < deadline:
                    following = self._next(plan)
                    if not following:
                        break
                    self._measure(following, runner)
            except KeyboardInterrupt:
                log.get("search").warning("interrupted: what is measured is kept")
        return self._choice()

    def _begin(self) -> None:
        self.store = Store(self.settings)
        self.key = key_of(self.problem, self.settings, self.builder.toolchain)
        self.known = self.store.trials(self.key) if self.resume else {}
        self.progress.resumed = len(self.known)
        self.taken: dict[str, tuple[Ranked, Outcome]] = {}
        self.expanded: set[str] = set()

    # -- what to measure -------------------------------------------------------------------------

    def _next(self, plan: Plan) -> list[Ranked]:
        """The best-looking ones left; once in two rounds, neighbours of the fastest first."""
        if self.progress.measured // ROUND % 2:
            self._neighbours(plan)
        scale = self._scales()
        left = [r for s, r in self.pool.items() if s not in self.taken]
        if not left and not self._neighbours(plan):
            return []
        left = [r for s, r in self.pool.items() if s not in self.taken]
        left.sort(key=lambda r: r.score.seconds * scale.get(_kind(r), 1.0))
        return left[:ROUND]

    def _scales(self) -> dict[str, float]:
        """Per kind of schedule, how many times longer it took than predicted."""
        ratios: dict[str, list[float]] = {}
        for one, outcome in self.taken.values():
            if outcome.status == "ok" and one.score.seconds < float("inf"):
                ratios.setdefault(_kind(one), []).append(
                    min(outcome.seconds) / one.score.seconds
                )
        return {kind: statistics.median(found) for kind, found in ratios.items()}

    def _neighbours(self, plan: Plan) -> bool:
        """Search on from the fastest that was not searched from; whether that gave anything new."""
        good = [(min(o.seconds), r) for r, o in self.taken.values() if o.status == "ok"]
        good.sort(key=lambda p: p[0])
        fresh = [r.seed for _, r in good if r.seed.script not in self.expanded][:2]
        if not fresh:
            return False
        self.expanded |= {s.script for s in fresh}
        before = len(self.pool)
        short = replace(plan, candidates=200)
        for one in candidates(self.problem, "beam", short, fresh):
            self.pool.setdefault(one.seed.script, one)
        return len(self.pool) > before

    # -- measuring -------------------------------------------------------------------------------

    def _measure(self, chosen: Sequence[Ranked], runner: Runner) -> None:
        """Run some schedules beside the fastest so far (first, the original), and store them."""
        base = self._best() or self.pool[""]
        batch = [base, *(r for r in chosen if r is not base)]
        target = Target(self.problem.simd_bytes, self.settings.threads)
        texts = [
            generate(r.seed.state, replace(self.signature, name=f"v{k}"), self.problem.analysis,
                     target, LONGEST_TEXT)
            for k, r in enumerate(batch)
        ]  # fmt: skip
        made = compile_batch(texts, self.builder.toolchain, self.settings)
        if made.library is None or 0 not in made.compiled:
            raise MeasureError(f"{self.signature.name}: {made.failed.get(0, 'does not compile')}")
        try:
            job = Job.of(
                made.library, made.compiled, self.problem.state.original, self.signature,
                self.problem.assumed,
            )  # fmt: skip
            with machine_lock():
                outcomes = runner.measure(replace(job, longest=float("inf"), stop=3.0))
        finally:
            shutil.rmtree(made.library.parent, ignore_errors=True)
        for k, one in enumerate(batch):
            outcome = outcomes.get(k, Outcome("not compiled"))
            seconds = min(outcome.seconds, default=None)
            self.store.tried(self.key, one.seed.script, outcome.status, seconds)
            self._note(one, outcome)
        self._keep()
        self.told(self.progress)

    def _note(self, one: Ranked, outcome: Outcome) -> None:
        self.taken[one.seed.script] = (one, outcome)
        progress = self.progress
        progress.measured = len(self.taken)
        progress.bad = sum(
            o.status in ("wrong", "crashed", "hung", "failed") for _, o in self.taken.values()
        )
        if outcome.status == "ok":
            if not one.seed.steps:
                progress.original = min(outcome.seconds)
            if min(outcome.seconds) < progress.best:
                progress.best, progress.name = min(outcome.seconds), one.seed.name

    def _best(self) -> Ranked | None:
        """The fastest so far, the original unless that is clearly slower; None at first."""
        good = [(min(o.seconds), r) for r, o in self.taken.values() if o.status == "ok"]
        if not good:
            return None
        seconds, best = min(good, key=lambda p: p[0])
        original = self.taken.get("")
        if original is not None and original[1].status == "ok":
            return best if min(original[1].seconds) > CLEAR * seconds else original[0]
        return best

    def _keep(self) -> None:
        choice = self._choice()
        self.store.put(self.key, stored(choice, len(self.taken)))

    def _choice(self) -> Choice:
        best = self._best()
        seed: Seed = best.seed if best is not None else self.pool[""].seed
        rows = [
            Row(r.seed.name, len(r.seed.steps), r.score, Samples(o.seconds),
                "" if o.status == "ok" else o.status)
            for r, o in self.taken.values()
        ]  # fmt: skip
        rows.sort(key=lambda r: r.samples.minimum if r.samples else float("inf"))
        return Choice(seed, tuple(rows[:24]), reasons(self.problem, seed))


def _kind(one: Ranked) -> str:
    return one.seed.name.partition("~")[0]


__all__ = ["Progress", "Tuner"]
