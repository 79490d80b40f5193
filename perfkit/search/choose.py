"""Choosing among candidate schedules: by name, by prediction, or by measuring the finalists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import inf

from perfkit import config, log
from perfkit.analysis.dependences import Analysis
from perfkit.cost.analytic import estimate
from perfkit.cost.scorer import Score
from perfkit.errors import (
    BudgetExceeded,
    CompileError,
    InternalError,
    PerfkitError,
    ScheduleError,
)
from perfkit.runtime.kernel import Kernel
from perfkit.runtime.measure import Samples, interleaved, ratio_interval
from perfkit.schedule import pluto, script, seeds
from perfkit.schedule.seeds import Seed
from perfkit.schedule.state import State
from perfkit.schedule.steps import Steps
from perfkit.search.auto import Problem, candidates
from perfkit.search.beam import Plan, Ranked

ENOUGH = 0.5
"""Seconds of measuring after which three rounds suffice."""

CLEAR = 1.1
"""A candidate that is not faster than the original by this factor does not replace it: between
processes, and between our code and the user's for one order, times differ by almost as much."""

HOPELESS = 3.0
"""A candidate that takes so many times longer than the best one is not run again."""

REPORTED = 12
"""Candidates in the report of a choice without measuring."""

NAMED = ("auto", "original", "parallel", "pluto")


@dataclass(frozen=True)
class Row:
    """One candidate in the report; ``samples`` when it was measured."""

    name: str
    steps: int
    score: Score | None = None
    samples: Samples | None = None
    note: str = ""


@dataclass(frozen=True)
class Choice:
    """The chosen schedule; ``report`` lists what else was considered, ``reasons`` why.

    A reason is a term of the cost model with its seconds in the original order and in this one.
    """

    seed: Seed
    report: tuple[Row, ...] = ()
    reasons: tuple[tuple[str, float, float], ...] = ()

    @property
    def script(self) -> str:
        return self.seed.script

    @property
    def seconds(self) -> float | None:
        """What the chosen schedule took, where it was measured."""
        rows = [r for r in self.report if r.name == self.seed.name and r.samples is not None]
        return rows[0].samples.minimum if rows and rows[0].samples is not None else None


def choose(problem: Problem, schedule: str, kind: str = "beam", plan: Plan | None = None) -> Choice:
    """A schedule by name ("auto", "original", "parallel", "pluto") or from the text of a script.

    Nothing is measured. ``kind`` and ``plan`` are those of the search behind "auto".

    Raises ScriptError, TransformError or IllegalSchedule for a script that cannot be applied.
    """
    state, analysis = problem.state, problem.analysis
    if schedule == "original":
        return Choice(Seed("original", (), state))
    if schedule == "auto":
        return best_looking(problem, candidates(problem, kind, plan))
    if schedule in NAMED:
        return Choice(_named(state, analysis, problem.simd_bytes, schedule))
    steps = script.parse(schedule)
    return Choice(Seed("script", steps, script.replay(state, steps, analysis)))


def best_looking(problem: Problem, found: Sequence[Ranked]) -> Choice:
    """The first of the candidates, the next ones in the report."""
    original = next(r for r in found if r.seed.name == "original")
    shown = list(found[:REPORTED])
    shown += [] if original in shown else [original]
    report = tuple(Row(r.seed.name, len(r.seed.steps), r.score) for r in shown)
    seed = found[0].seed
    return Choice(seed, report, reasons(problem, seed))


def reasons(problem: Problem, seed: Seed) -> tuple[tuple[str, float, float], ...]:
    """What the analytic terms say of the original order and of a schedule, in seconds."""

    def terms(state: State) -> dict[str, float]:
        poly = problem.analysis.polyhedra(state.scop)
        found = estimate(poly, state.scop, state.tree, problem.assumed, problem.device)
        fills = {f"filling cache {k + 1}": s for k, s in enumerate(found.memory)}
        return {"computing": found.compute, **fills, "loops and threads": found.overhead}

    try:
        before, after = terms(problem.state), terms(seed.state)
    except BudgetExceeded:
        return ()
    return tuple((name, before[name], after[name]) for name in before)


def _named(state: State, analysis: Analysis, simd_bytes: int, name: str) -> Seed:
    """One model-free schedule, on expanded temporaries where that is possible."""
    start = Steps(state, analysis)
    for prepare in (seeds.expanded, Steps.copy):
        try:
            base = prepare(start)
            if name == "parallel":
                steps = seeds.parallel(base, simd_bytes)
            else:
                order = pluto.schedule(base.dependences, pluto.Options("smart"))
                steps = seeds.tiled(base, order, simd_bytes, seeds.Sizes())
        except (BudgetExceeded, ScheduleError) as error:
            log.get("search").info("%s: %s", name, error)
        else:
            return Seed(name, steps.done, steps.state)
    log.get("search").warning("%s: no such schedule was found; the original order is kept", name)
    return seeds.original(state)


def measured(
    problem: Problem,
    found: Sequence[Ranked],
    source: Callable[[Seed], str],
    build: Callable[[Seed, str], Kernel],
    run: Callable[[Kernel], Callable[[], float]],
    rounds: int = 3,
) -> Choice:
    """Run candidates, the original among them, and keep the fastest.

    ``source`` makes the code of a candidate, ``build`` compiles it (several at a time), and ``run``
    binds it to data: the callable it returns runs once and gives seconds. A candidate that does not
    compile is left out with a message.
    """
    ordered = sorted(found, key=lambda r: r.seed.name != "original")
    kernels, notes = _kernels(ordered, source, build)
    ready = [(one, run(kernels[k])) for k, one in enumerate(ordered) if k in kernels]
    samples = interleaved(
        [call for _, call in ready], rounds, enough=ENOUGH, stop_ratio=HOPELESS
    )
    best = ready[_best(samples)][0].seed
    rows = [Row(ordered[k].seed.name, len(ordered[k].seed.steps), ordered[k].score, note=note)
            for k, note in notes.items()]  # fmt: skip
    rows += [
        Row(one.seed.name, len(one.seed.steps), one.score, taken)
        for (one, _), taken in zip(ready, samples, strict=True)
    ]
    rows.sort(key=lambda r: r.samples.minimum if r.samples else inf)
    return Choice(best, tuple(rows), reasons(problem, best))


def _kernels(
    found: Sequence[Ranked],
    source: Callable[[Seed], str],
    build: Callable[[Seed, str], Kernel],
) -> tuple[dict[int, Kernel], dict[int, str]]:
    """Kernels by position, and why the missing ones are missing; the first must not be missing."""
    kernels: dict[int, Kernel] = {}
    notes: dict[int, str] = {}

    def left_out(k: int, error: PerfkitError) -> None:
        if k == 0:
            raise error
        log.get("search").warning("%s is left out: %s", found[k].seed.name, error)
        notes[k] = str(error).splitlines()[0]

    with ThreadPoolExecutor(config.available_cores()) as pool:
        building: dict[int, Future[Kernel]] = {}
        for k, one in enumerate(found):  # isl in this thread, compilers in the others
            try:
                building[k] = pool.submit(build, one.seed, source(one.seed))
            except (BudgetExceeded, InternalError, ScheduleError) as error:
                left_out(k, error)
        for k, future in building.items():
            try:
                kernels[k] = future.result()
            except CompileError as error:
                left_out(k, error)
    return kernels, notes


def _best(samples: Sequence[Samples]) -> int:
    """The fastest, or the first, the original, unless that is clearly slower.

    Clearly: by the fastest round and in the middle, by more than what rounds differ by chance;
    and, with enough rounds to tell, in most of the rounds (a bound of 0 means too few).
    """
    original, *_ = samples
    best = min(range(len(samples)), key=lambda k: samples[k].minimum)
    found = samples[best]
    gain = min(original.minimum / found.minimum, original.median / found.median)
    sure = not 0.0 < ratio_interval(original.seconds, found.seconds).low <= 1.0
    return best if gain > CLEAR and sure else 0
