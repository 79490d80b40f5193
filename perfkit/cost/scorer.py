"""One interface to both cost models: predicted seconds of schedules, and how far to trust them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf
from pathlib import Path
from typing import Protocol

from perfkit import log
from perfkit.analysis.dependences import Analysis
from perfkit.cost.analytic import estimate
from perfkit.cost.device import Device
from perfkit.cost.features import Extractor
from perfkit.cost.model import SHIPPED, Model, load
from perfkit.cost.tokens import Tokens
from perfkit.errors import BudgetExceeded, WeightsError
from perfkit.ir.scop import Scop
from perfkit.schedule.state import State

ANALYTIC_SPREAD = 0.43
"""One deviation of log(predicted / measured) of the analytic model between schedules of a program.

The median over 126 random programs, 3749 measured schedules, two threads of an AMD EPYC (Zen 3).
"""


@dataclass(frozen=True, slots=True)
class Score:
    """Predicted ``seconds`` of one run; ``spread`` is one deviation of their natural logarithm."""

    seconds: float
    spread: float

    def cautious(self, deviations: float = 1.0) -> float:
        """Seconds that are rarely exceeded: with one deviation in about one of six cases."""
        return self.seconds * exp(deviations * self.spread)


UNKNOWN = Score(inf, 0.0)
"""Of a schedule that isl cannot bound within its budget."""


class Scorer(Protocol):
    """Predicts many schedules of one program at once."""

    @property
    def name(self) -> str:
        """Of the model, for reports."""

    def score(self, states: Sequence[State]) -> list[Score]: ...


@dataclass(frozen=True)
class AnalyticScorer:
    """The roofline with caches of :mod:`perfkit.cost.analytic`."""

    analysis: Analysis
    sizes: Mapping[str, int]
    device: Device
    name: str = "analytic"

    def score(self, states: Sequence[State]) -> list[Score]:
        return [self._one(s) for s in states]

    def _one(self, state: State) -> Score:
        try:
            poly = self.analysis.polyhedra(state.scop)
            found = estimate(poly, state.scop, state.tree, self.sizes, self.device)
        except BudgetExceeded as error:
            log.get("search").info("a schedule is not scored: %s", error)
            return UNKNOWN
        return Score(found.seconds, ANALYTIC_SPREAD)


@dataclass(frozen=True)
class LearnedScorer:
    """A trained ensemble over :mod:`perfkit.cost.features`; its spread is their disagreement."""

    analysis: Analysis
    extractor: Extractor
    model: Model
    name: str = "learned"

    def score(self, states: Sequence[State]) -> list[Score]:
        tokens = [self._tokens(s) for s in states]
        known = [t for t in tokens if t is not None]
        found = self.model.predict(known)
        scores = map(Score, map(float, found.seconds(known)), map(float, found.spread))
        return [UNKNOWN if t is None else next(scores) for t in tokens]

    def _tokens(self, state: State) -> Tokens | None:
        try:
            poly = self.analysis.polyhedra(state.scop)
            return self.extractor.tokens(poly, state.scop, state.tree)
        except BudgetExceeded as error:
            log.get("search").info("a schedule is not scored: %s", error)
            return None


def scorer_of(
    scop: Scop,
    analysis: Analysis,
    sizes: Mapping[str, int],
    device: Device,
    model: Model | None,
    fp: str = "strict",
) -> Scorer:
    """The learned model where there is one and its features can be had, else the analytic one.

    ``sizes`` gives every parameter of ``scop``, the original program, a value.
    """
    if model is not None:
        try:
            extractor = Extractor(analysis.polyhedra(scop), scop, sizes, device, fp)
        except BudgetExceeded as error:
            log.get("search").info("the analytic model is used: %s", error)
        else:
            return LearnedScorer(analysis, extractor, model)
    return AnalyticScorer(analysis, sizes, device)


def shipped(path: Path = SHIPPED) -> Model | None:
    """The weights that come with perfkit; None, with a message, where they cannot be used."""
    if not path.exists():
        return None
    try:
        return load(path)
    except WeightsError as error:
        log.get("search").warning("the analytic model is used: %s", error)
        return None


__all__ = ["UNKNOWN", "AnalyticScorer", "LearnedScorer", "Score", "Scorer", "scorer_of", "shipped"]
