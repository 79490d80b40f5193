"""``schedule="auto"``: from a program to schedules in the order in which they look best.

The seeds of :mod:`perfkit.schedule.seeds` come first: what a compiler would do without a search.
From them the beam (or LOOPer's procedure) goes on. A schedule that the search found has to look
better than a seed by more than the model's uncertainty, since a search finds the errors of a model
too. Between seeds that look alike a plain preference decides: contractions blocked for registers,
then the original order with its loops marked, then the Pluto-like tilings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, log1p

from perfkit import config, log
from perfkit.analysis.dependences import Analysis
from perfkit.cost.analytic import assumed
from perfkit.cost.device import Device
from perfkit.cost.model import Model
from perfkit.cost.scorer import Scorer, scorer_of
from perfkit.errors import BudgetExceeded
from perfkit.ir.tree import loops
from perfkit.runtime.machine import Machine
from perfkit.schedule import seeds
from perfkit.schedule.seeds import Seed
from perfkit.schedule.state import State
from perfkit.search import looper
from perfkit.search.beam import Plan, Ranked, beam
from perfkit.search.space import skeleton

_PREFERENCE = ("register", "parallel", "pluto-smart", "pluto-max", "block", "pluto-min")

FORMS = ("block", "diamond", "notile", "panels")
"""Endings of the names of seeds that are not tiled as Pluto would."""

CLOSE = 0.03
"""Predictions that differ by less than about this share count as equal."""

CAUTION = 3.0
"""Deviations that are added to the prediction of a schedule that the search found.

The best-looking of hundreds is there for its error as much as for its speed: with one deviation
the analytic model chose worse schedules than the seeds on three of ten PolyBench kernels.
"""

UNSURE = 6
"""One of so many finalists is picked for being uncertain."""


@dataclass(frozen=True)
class Problem:
    """What a schedule is wanted for.

    ``sizes`` are the values of parameters that are known; the others are guessed. ``threads`` is
    how many a kernel runs on (default: all cores). Without ``model`` the analytic one predicts.
    """

    state: State
    analysis: Analysis
    machine: Machine
    sizes: Mapping[str, int] = field(default_factory=dict)
    threads: int | None = None
    model: Model | None = None

    @property
    def simd_bytes(self) -> int:
        return self.machine.simd_bytes or 16

    @cached_property
    def device(self) -> Device:
        return Device.of(self.machine, self.threads)

    @cached_property
    def assumed(self) -> dict[str, int]:
        """A size for every parameter."""
        return assumed(self.state.scop, self.sizes)

    @cached_property
    def scorer(self) -> Scorer:
        return scorer_of(
            self.state.scop, self.analysis, self.assumed, self.device, self.model, self.state.fp
        )


def tile_sizes(device: Device, values: Mapping[str, int]) -> seeds.Sizes:
    """What the seeds size their tiles by; ``values`` are the parameters that are known."""
    cache = device.levels[min(1, len(device.levels) - 1)].bytes
    return seeds.Sizes(cache=cache, threads=device.threads, values=values)


def plan_of(settings: config.Settings) -> Plan:
    """The bounds of a search that the settings ask for."""
    return Plan(
        width=settings.search_width, each=max(1, settings.search_width // 4),
        seconds=settings.search_seconds, pluto=settings.search_pluto,
    )  # fmt: skip


def candidates(
    problem: Problem,
    kind: str = "beam",
    plan: Plan | None = None,
    start: Sequence[Seed] | None = None,
) -> list[Ranked]:
    """Distinct schedules, best-looking first; the original is always among them.

    ``kind`` is "beam", "looper", or "seeds" for no search. The search goes on from ``start``, by
    default from the compiler's seeds.
    """
    plan = plan or Plan()
    if start is None:
        start = _seeds(problem)
    if not plan.pluto:
        start = [s for s in start if not s.name.startswith("pluto")]
    if kind == "looper":
        return ranked(looper.search(problem.analysis, problem.scorer, plan, start[0]), caution=0.0)
    if kind == "seeds":
        plan = Plan(candidates=0, seconds=0.0, pluto=plan.pluto)
    return ranked(beam(problem.analysis, problem.scorer, problem.simd_bytes, plan, start))


def _seeds(problem: Problem) -> list[Seed]:
    try:
        return seeds.candidates(
            problem.state, problem.simd_bytes, problem.analysis,
            tile_sizes(problem.device, problem.sizes),
        )  # fmt: skip
    except BudgetExceeded as error:
        log.get("search").warning("the original order is kept: %s", error)
        return [seeds.original(problem.state)]


def ranked(found: Iterable[Ranked], caution: float = CAUTION) -> list[Ranked]:
    """The same schedules, best-looking first.

    ``caution`` deviations are added to the predictions of those that the search found.
    """

    def key(one: Ranked) -> tuple[float, tuple[int, int, str]]:
        deviations = 0.0 if one.origin == "seed" else caution
        return (_step(one.score.cautious(deviations)), _rank(one.seed))

    return sorted(found, key=key)


def finalists(found: Sequence[Ranked], count: int) -> list[Ranked]:
    """What to measure: ``count`` schedules, and in any case the original, a Pluto-like one and
    one with diamond tiles, where there is one.

    More than half are seeds, of different kinds first. The others are the best-looking results of
    the search, of different shapes, and some whose prediction is most uncertain.
    """
    original = next(r for r in found if r.seed.name == "original")
    known = [r for r in found if r.origin == "seed" and r is not original]
    beyond = sorted((r for r in found if r.origin != "seed"), key=lambda r: r.score.seconds)
    unsure = count // UNSURE if beyond else 0
    share = ceil(count / 2) + (count > 2) if beyond else count
    chosen = _apart(known, share, lambda r: _kind(r.seed))
    chosen += _apart(beyond, count - unsure - len(chosen), lambda r: skeleton(r.seed.state.tree))
    left = [r for r in beyond[: 10 * count] if r not in chosen]
    chosen += sorted(left, key=lambda r: -r.score.spread)[:unsure]
    for wanted in (_is_pluto, _is_diamond):
        best = next((r for r in known if wanted(r.seed)), None)
        if best is not None and best not in chosen:
            chosen.append(best)
    return [original, *chosen]


def _apart(found: Sequence[Ranked], count: int, kind: Callable[[Ranked], str]) -> list[Ranked]:
    """The first ``count``, with no kind twice while there are others."""
    first: dict[str, Ranked] = {}
    for one in found:
        first.setdefault(kind(one), one)
    fresh = list(first.values())
    return [*fresh, *(r for r in found if r not in fresh)][: max(0, count)]


def _kind(seed: Seed) -> str:
    """What a seed does, whichever way its temporaries are stored and its loops are fused."""
    return f"{seed.name.partition('-')[0]} {_form(seed)} {len(seed.state.scop.arrays)}"


def _is_pluto(seed: Seed) -> bool:
    return seed.name.startswith("pluto") and not _form(seed)


def _is_diamond(seed: Seed) -> bool:
    """Diamond tiles are not among the schedules that the learned model was trained on."""
    return _form(seed) == "diamond"


def _form(seed: Seed) -> str:
    """How a scheduler's order was shaped, "" for plain tiles."""
    order, _, form = seed.name.rpartition("-")
    return form if order and form in FORMS else ""


def _step(seconds: float) -> float:
    """The time on a logarithmic scale, in whole steps of ``CLOSE``."""
    return seconds if seconds == float("inf") else float(round(log1p(seconds * 1e9) / CLOSE))


def _rank(seed: Seed) -> tuple[int, int, str]:
    """Family first; within a family, expanded forms first: they have more freedom."""
    family, _, form = seed.name.partition("-block")
    if any(x.mark("jam") for x in loops(seed.state.tree)):
        family, form = "register", form
    order = next((k for k, f in enumerate(_PREFERENCE) if family.startswith(f)), len(_PREFERENCE))
    if seed.name == "original":
        order += 1
    detail = ("notile" in seed.name) + ("all" in seed.name) - ("expanded" in seed.name)
    return (order, detail, seed.name)


__all__ = ["Problem", "candidates", "finalists", "plan_of", "ranked", "tile_sizes"]
