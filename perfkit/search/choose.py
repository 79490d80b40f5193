"""Choosing among candidate schedules: by name, by preference, or by measuring the finalists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from perfkit import log
from perfkit.analysis.dependences import Analysis
from perfkit.errors import BudgetExceeded, CompileError, InternalError, ScheduleError
from perfkit.runtime.kernel import Kernel
from perfkit.runtime.machine import Machine
from perfkit.runtime.measure import Samples, interleaved
from perfkit.schedule import pluto, script, seeds
from perfkit.schedule.seeds import Seed
from perfkit.schedule.state import State
from perfkit.schedule.steps import Steps
from perfkit.search.candidates import candidates

ENOUGH = 0.5
"""Seconds of measuring after which three rounds suffice."""

CLEAR = 1.02
"""A candidate that is not faster than the original by this factor does not replace it."""

NAMED = ("auto", "original", "parallel", "pluto")


@dataclass(frozen=True)
class Choice:
    """The chosen schedule; ``report`` lists what else was considered."""

    seed: Seed
    report: tuple[Row, ...] = ()

    @property
    def script(self) -> str:
        return self.seed.script


@dataclass(frozen=True)
class Row:
    """One candidate in the report; ``samples`` when it was measured."""

    name: str
    steps: int
    samples: Samples | None = None
    note: str = field(default="")


def choose(
    state: State,
    analysis: Analysis,
    machine: Machine,
    schedule: str,
    sizes: Mapping[str, int] | None = None,
    threads: int | None = None,
) -> Choice:
    """A schedule by name ("auto", "original", "parallel", "pluto") or from the text of a script.

    ``sizes`` (values of parameters) and ``threads`` say what "auto" is to be good for.

    Raises ScriptError, TransformError or IllegalSchedule for a script that cannot be applied.
    """
    if schedule == "original":
        return Choice(Seed("original", (), state))
    if schedule == "auto":
        found = candidates(state, analysis, machine, sizes, threads)
        return Choice(found[0], tuple(Row(s.name, len(s.steps)) for s in found))
    if schedule in NAMED:
        return Choice(_named(state, analysis, machine.simd_bytes or 16, schedule))
    steps = script.parse(schedule)
    return Choice(Seed("script", steps, script.replay(state, steps, analysis)))


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
    found: Sequence[Seed],
    count: int,
    build: Callable[[Seed], Kernel],
    run: Callable[[Kernel], Callable[[], float]],
    rounds: int = 3,
) -> Choice:
    """Run the ``count`` best-looking candidates and the original; keep the fastest.

    ``build`` compiles a candidate and ``run`` binds it to data: the callable it returns runs once
    and gives seconds. A candidate that does not compile is left out with a message.
    """
    original = next(s for s in found if s.name == "original")
    finalists = [s for s in found if s is not original][:count]
    ready: list[tuple[Seed, Callable[[], float]]] = []
    rows: list[Row] = []
    for seed in [original, *finalists]:
        try:
            ready.append((seed, run(build(seed))))
        except (BudgetExceeded, CompileError, InternalError, ScheduleError) as error:
            if seed is original:
                raise
            log.get("search").warning("%s is left out: %s", seed.name, error)
            rows.append(Row(seed.name, len(seed.steps), note=str(error).splitlines()[0]))
    calls = [call for _, call in ready]
    samples = interleaved(calls, rounds, keep=[0], enough=ENOUGH)
    best = _best(samples)
    rows += [
        Row(seed.name, len(seed.steps), s) for (seed, _), s in zip(ready, samples, strict=True)
    ]
    return Choice(ready[best][0], tuple(rows))


def _best(samples: Sequence[Samples]) -> int:
    """The fastest, or the first, the original, unless that is clearly slower.

    Clearly: by the fastest round and in the middle, by more than what rounds differ by chance.
    """
    original, *_ = samples
    best = min(range(len(samples)), key=lambda k: samples[k].minimum)
    found = samples[best]
    gain = min(original.minimum / found.minimum, original.median / found.median)
    return best if gain > CLEAR else 0
