"""One program: check every candidate against the reference, then time them in rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.polybench import peers
from bench.polybench.peers import ORIGINAL, OURS, Candidate, Job, Unavailable
from bench.polybench.registry import Program
from bench.polybench.remote import PeerFailed, Worker
from bench.polybench.results import Result, Row
from perfkit.runtime import measure

MINIMUM_ROUNDS = 3
# A peer that takes more seconds than this, and this many times the best, is not run again: the
# seconds of its first run are its result.
STOP_ABOVE = 1.0
FAR = 3.0
# Ratios to the original that are worth all rounds, so that "not slower" can be said or refused.
CLOSE = (0.85, 1.2)
# The tolerance grows to what the original itself needs under other flags, but not beyond this.
MOST_TOLERANCE = 100.0
# A candidate may take this many times longer than the original before it counts as hanging.
PATIENCE = 30.0


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    dataset: str
    threads: int
    peers: tuple[str, ...]
    ours: bool = True
    rounds: int = measure.MINIMUM_PAIRS
    budget: float = 60.0  # seconds of timing per program; 0: no limit
    check_only: bool = False
    schedule: str = "auto"
    fp: str = "strict"
    measured: int = 0
    search: str = "beam"
    width: int = 16
    pluto: bool = True
    seed: int = 0
    timeout: float = 900.0


def difference(expected: np.ndarray[Any, Any], actual: np.ndarray[Any, Any]) -> float:
    """Largest |actual - expected| over (largest |expected| + |expected|); 0 when equal.

    Integers, shapes and what is not finite must be equal, else the difference is infinite.
    """
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return math.inf
    if expected.size == 0:
        return 0.0
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(expected, actual) else math.inf
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], actual[~finite], equal_nan=True):
        return math.inf
    left, right = expected[finite].astype(np.float64), actual[finite].astype(np.float64)
    if left.size == 0:
        return 0.0
    if not np.isfinite(right).all():
        return math.inf
    scale = float(np.abs(left).max())
    if scale == 0.0:
        return 0.0 if not right.any() else math.inf
    return float((np.abs(right - left) / (scale + np.abs(left))).max())


@dataclass(frozen=True)
class Reference:
    """The outputs that are right."""

    program: Program
    dataset: str
    folder: Path
    value: float | None

    def compare(self, answer: Mapping[str, Any], folder: Path) -> float:
        """Largest difference of a candidate's outputs, over what is numerically meaningful."""
        defined = self.program.defined(self.program.sizes[self.dataset])
        worst = 0.0
        for name in self.program.outputs:
            index = defined.get(name, ...)
            expected = np.load(self.folder / f"{name}.npy", mmap_mode="r")[index]
            actual = np.load(folder / f"{name}.npy", mmap_mode="r")[index]
            worst = max(worst, difference(np.asarray(expected), np.asarray(actual)))
        if self.value is not None:
            value = answer["value"]
            if not isinstance(value, float):
                return math.inf
            worst = max(worst, difference(np.array([self.value]), np.array([value])))
        return worst


def far(first_seconds: Mapping[str, float]) -> frozenset[str]:
    """The peers that need no more runs, being far slower than the best; never ours or gcc."""
    limit = max(STOP_ABOVE, FAR * min(first_seconds.values(), default=0.0))
    return frozenset(n for n, s in first_seconds.items() if s > limit) - {ORIGINAL, OURS}


def rounds_for(budget: float, first_seconds: Mapping[str, float], most: int) -> int:
    """How many rounds fit into the budget: at least :data:`MINIMUM_ROUNDS`, at most ``most``."""
    if budget <= 0:
        return most
    each = sum(s if s > 0.5 else 2 * s for s in first_seconds.values())
    return max(min(MINIMUM_ROUNDS, most), min(most, int(budget / max(each, 1e-9))))


class Measurement:
    """The state of one program's measurement; used once."""

    def __init__(
        self,
        program: Program,
        options: Options,
        tools: peers.Tools,
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        self.job = Job(program, options.dataset, tools, folder)
        self.options = options
        self.say = say
        self.row = Row(program.name, program.suite, dict(program.sizes[options.dataset]))
        self.row.tolerance = program.tolerance
        self.workers: dict[str, Worker] = {}

    def run(self) -> Row:
        """The finished row; whatever goes wrong is in it. All workers have ended."""
        with ExitStack() as stack:
            self.stack = stack
            try:
                reference = self._reference()
            except (Unavailable, PeerFailed) as error:
                self.row.error = f"the reference failed: {error}"
                return self.row
            for candidate in self._candidates():
                self.say(f"checking {candidate.name}")
                self._check(candidate, reference)
            self._judge()
            if not self.options.check_only and self.workers:
                self._time(reference)
        return self.row

    def _worker(self, candidate: Candidate) -> Worker:
        log = self.job.folder / f"{candidate.name.replace(':', '-')}.log"
        worker = Worker(candidate.name, self.options.threads, log)
        self.stack.callback(worker.close)
        return worker

    def _load(self, worker: Worker, candidate: Candidate) -> dict[str, Any]:
        spec = {
            "program": self.job.program.name,
            "dataset": self.options.dataset,
            "seed": self.options.seed,
            **candidate.spec,
        }
        facts: dict[str, Any] = worker.ask(self.options.timeout, "load", **spec)["facts"]
        return facts

    def _reference(self) -> Reference:
        self.say("running the reference")
        candidate = peers.reference(self.job)
        folder = self.job.folder / "reference"
        folder.mkdir()
        worker = self._worker(candidate)
        self._load(worker, candidate)
        seconds = worker.ask(self.options.timeout, "once")["seconds"]
        self.patience = 60.0 + PATIENCE * seconds
        answer = worker.ask(self.options.timeout, "outputs", folder=str(folder))
        worker.close()
        return Reference(self.job.program, self.options.dataset, folder, answer["value"])

    def _candidates(self) -> list[Candidate]:
        found: list[Candidate] = []
        # The original comes first, whatever was asked for: everything is told against it.
        for peer in dict.fromkeys((ORIGINAL, *self.options.peers)):
            made = peers.make(peer, self.job)
            found += made.candidates
            self.row.missing.update(made.missing)
        if self.options.ours:
            options = self.options
            spec = {"kind": OURS, "schedule": options.schedule, "measure": options.measured}
            found.append(Candidate(OURS, OURS, spec))
        return [self._completed(c) for c in found]

    def _completed(self, candidate: Candidate) -> Candidate:
        """What perfkit's own candidates have in common."""
        if candidate.spec.get("kind") != OURS:
            return candidate
        options = self.options
        common = {"fp": options.fp, "threads": options.threads, "search": options.search}
        common |= {"search_width": options.width, "search_pluto": options.pluto}
        return replace(candidate, spec={**common, **candidate.spec})

    def _check(self, candidate: Candidate, reference: Reference) -> None:
        """Load, run once, compare; the worker stays alive when that went well."""
        result = self.row.results[candidate.name] = Result(candidate.peer)
        worker = self._worker(candidate)
        folder = self.job.folder / f"{candidate.name.replace(':', '-')}-outputs"
        folder.mkdir()
        try:
            result.facts = self._load(worker, candidate)
            result.first_seconds = worker.ask(self.patience, "once")["seconds"]
            answer = worker.ask(self.options.timeout, "outputs", folder=str(folder))
            result.difference = reference.compare(answer, folder)
            self.workers[candidate.name] = worker
            result.settle_seconds = worker.settle()
        except PeerFailed as error:
            result.error = str(error)
            worker.close()

    def _judge(self) -> None:
        """Decide who is right, by a tolerance that the original passes under other flags."""
        plain = [self.row.results.get(name) for name in ("gcc", "clang")]
        needed = [r.difference for r in plain if r and r.difference is not None]
        tolerance = self.row.tolerance
        loosened = min(2.0 * max(needed, default=0.0), MOST_TOLERANCE * tolerance)
        self.row.tolerance = max(tolerance, loosened)
        for name, result in self.row.results.items():
            if result.difference is not None and not result.difference <= self.row.tolerance:
                result.wrong = True
                self.workers.pop(name).close()

    def _time(self, reference: Reference) -> None:
        results = self.row.results
        first = {name: results[name].first_seconds or 0.0 for name in self.workers}
        for name in far(first):
            results[name].seconds, results[name].stopped = [first.pop(name)], True
        names = list(first)
        self.row.rounds = rounds_for(self.options.budget, first, self.options.rounds)
        self.say(f"timing {len(names)} candidates in {self.row.rounds} rounds")
        with measure.machine_lock():
            self._rounds(names, self.row.rounds)
            pair = [name for name in (ORIGINAL, OURS) if name in names]
            more = self.options.rounds - self.row.rounds
            if more > 0 and len(pair) == 2 and self._is_close():
                self.say(f"timing {' and '.join(pair)} in {more} more rounds")
                self._rounds(pair, more)
        # Once more: a race may have been lucky the first time.
        for name in names:
            self._recheck(name, reference)

    def _rounds(self, names: list[str], rounds: int) -> None:
        def candidate(name: str) -> Callable[[], float]:
            worker, result = self.workers[name], self.row.results[name]

            def once() -> float:
                seconds: float = worker.ask(self.patience, "sample")["seconds"]
                result.settle_seconds = max(result.settle_seconds, worker.settle())
                return seconds

            return once

        samples = measure.interleaved(
            [candidate(name) for name in names], rounds, warmup=0, keep=range(len(names))
        )
        for name, taken in zip(names, samples, strict=True):
            result = self.row.results[name]
            result.seconds += taken.seconds
            result.error = taken.error

    def _is_close(self) -> bool:
        original, ours = self.row.results[ORIGINAL], self.row.results[OURS]
        if not (original.usable and ours.usable):
            return False
        return CLOSE[0] <= original.median / ours.median <= CLOSE[1]

    def _recheck(self, name: str, reference: Reference) -> None:
        result = self.row.results[name]
        if result.error:
            return
        folder = self.job.folder / f"{name.replace(':', '-')}-outputs"
        try:
            answer = self.workers[name].ask(self.options.timeout, "outputs", folder=str(folder))
        except PeerFailed as error:
            result.error = str(error)
            return
        result.difference = max(result.difference or 0.0, reference.compare(answer, folder))
        result.wrong = not result.difference <= self.row.tolerance
