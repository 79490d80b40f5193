"""From what the user asked for to one schedule: named, stored, searched, or measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from perfkit import config, log
from perfkit.cost.scorer import Score
from perfkit.errors import BudgetExceeded, ScheduleError
from perfkit.runtime.build import Toolchain
from perfkit.runtime.kernel import Kernel
from perfkit.runtime.measure import Samples
from perfkit.schedule import script
from perfkit.schedule.seeds import Seed
from perfkit.search.auto import Problem, candidates, finalists, plan_of
from perfkit.search.choose import Choice, Row, best_looking, choose, measured, reasons
from perfkit.search.store import Key, Store, Stored


@dataclass(frozen=True)
class Trials:
    """How to run a schedule: its C text, the kernel of that, and a timer bound to data."""

    source: Callable[[Seed], str]
    build: Callable[[Seed, str], Kernel]
    run: Callable[[Kernel], Callable[[], float]]


def decide(
    problem: Problem,
    settings: config.Settings,
    toolchain: Toolchain,
    schedule: str = "auto",
    measure: int = 0,
    trials: Trials | None = None,
) -> Choice:
    """The schedule of that name or script; for "auto" a stored one, else what a search finds.

    With ``measure`` and ``trials`` so many candidates are run. A search's result is stored.

    Raises ScriptError, TransformError or IllegalSchedule for a script that cannot be applied.
    """
    plan = plan_of(settings)
    if schedule != "auto":
        return choose(problem, schedule)

    def search() -> Choice:
        found = candidates(problem, settings.search, plan)
        if measure > 0 and trials is not None:
            finals = finalists(found, measure)
            return measured(problem, finals, trials.source, trials.build, trials.run)
        return best_looking(problem, found)

    if not settings.reuse:
        return search()
    fresh: list[Choice] = []

    def find() -> Stored:
        fresh.append(search())
        return stored(fresh[0], measure if trials is not None else 0)

    key = key_of(problem, settings, toolchain)
    known = Store(settings).obtain(key, measure if trials is not None else 0, find)
    if fresh:
        return fresh[0]
    try:
        return restored(problem, known)
    except (BudgetExceeded, ScheduleError) as error:
        log.get("search").warning("a stored schedule does not fit; searching again: %s", error)
        return search()


def key_of(problem: Problem, settings: config.Settings, toolchain: Toolchain) -> Key:
    """Under which the schedule for a problem is stored."""
    state = problem.state
    return Key.of(
        state.scop, problem.sizes, problem.machine, toolchain, settings, state.fp,
        problem.model.name if problem.model is not None else "analytic",
    )  # fmt: skip


def stored(choice: Choice, effort: int) -> Stored:
    """A choice as plain data."""
    report = [asdict(row) for row in choice.report]
    return Stored(choice.seed.name, choice.script, effort, choice.seconds, report)


def restored(problem: Problem, found: Stored) -> Choice:
    """A stored choice, its script replayed and proved. Raises like ``script.replay``."""
    steps = script.parse(found.script)
    state = script.replay(problem.state, steps, problem.analysis)
    seed = Seed(found.seed, steps, state)
    return Choice(seed, tuple(map(_row, found.report or ())), reasons(problem, seed))


def _row(plain: dict[str, Any]) -> Row:
    score, samples = plain["score"], plain["samples"]
    return Row(
        plain["name"],
        plain["steps"],
        None if score is None else Score(**score),
        None if samples is None else Samples(**{**samples, "seconds": tuple(samples["seconds"])}),
        plain["note"],
    )


__all__ = ["Trials", "decide", "key_of", "restored", "stored"]
