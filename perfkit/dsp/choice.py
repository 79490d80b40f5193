"""Which plan a model gets: the cheapest of the ways to follow what was asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from perfkit.cost.transfer import Link
from perfkit.dsp.kernels import (
    Kernels,
    Prices,
    fused_seconds,
    pipelined_seconds,
    plain_seconds,
)
from perfkit.dsp.methods import Approach, PlanLike, approaches
from perfkit.dsp.plan import Graph
from perfkit.dsp.pricing import Mesh, Passes
from perfkit.dsp.stages import Decision, Stages
from perfkit.dsp.trace import Trace
from perfkit.errors import PlanError


@dataclass(frozen=True)
class Request:
    """What the caller asked for; kept to plan again when the model has changed."""

    plan: PlanLike
    mesh: Mesh | None
    passes: Passes | None
    kernels: Kernels = "plain"
    shared: bool = False  # the ranks can have a heap


@dataclass(frozen=True)
class Planned:
    """What came of it. ``modules`` are the model's modules then."""

    method: str
    trace: Trace
    decision: Decision
    modules: tuple[tuple[str, type], ...]
    prices: Prices | None = None


def planned(model: nn.Module, ranks: int, given: Mapping[str, Any], request: Request) -> Planned:
    """The cheapest of the ways to follow a plan; with kernels of the caller's choice."""
    plain = None
    if request.kernels != "fused":
        plain = _cheapest(model, ranks, approaches(model, given, request.plan), request)
    if request.kernels == "plain" and plain is not None:
        return plain
    why = "asked for"
    try:
        fused = _cheapest(model, ranks, approaches(model, given, "fused"), request)
    except PlanError as error:
        if plain is None:
            raise
        return replace(plain, prices=_prices(plain, None, ranks, "plain", str(error)))
    if plain is None:
        return replace(fused, prices=_prices(None, fused, ranks, "fused", why))
    kinds = {x.dtype for x in given.values() if isinstance(x, Tensor) and x.is_floating_point()}
    places = {x.device.type for x in given.values() if isinstance(x, Tensor)}
    if places != {"cpu"} or not kinds <= {torch.float32, torch.bfloat16}:
        why = "the fused kernels take float32 and bfloat16 on the CPU"
    elif not request.shared:
        why = "the ranks share no memory"
    else:
        both = _prices(plain, fused, ranks, "", "the cheapest that runs inside an unmodified model")
        mine, theirs = both.seconds["fused"], both.seconds["plain"]
        assert mine is not None and theirs is not None
        name = "fused" if mine < theirs else "plain"
        return replace(fused if name == "fused" else plain, prices=replace(both, chosen=name))
    return replace(plain, prices=_prices(plain, None, ranks, "plain", why))


def _prices(
    plain: Planned | None, fused: Planned | None, ranks: int, chosen: str, why: str
) -> Prices:
    seconds: dict[str, float | None] = {"plain": None, "pipelined": None, "fused": None}
    if plain is not None:
        seconds["plain"] = plain_seconds(plain.decision, ranks)
        seconds["pipelined"] = pipelined_seconds(plain.trace, plain.decision, ranks)
    if fused is not None:
        seconds["fused"] = fused_seconds(fused.trace, fused.decision, ranks)
    return Prices(seconds, chosen, why)


def _cheapest(model: nn.Module, ranks: int, ways: Sequence[Approach], request: Request) -> Planned:
    best: tuple[float, Planned] | None = None
    passes = request.passes or Passes(training=model.training)
    for way in ways:
        stages = Stages(way.trace, way.axes, way.fixed, way.divided)
        decision = stages.decide(request.mesh or _willing(stages.graph()[0], ranks), passes)
        seconds = decision.plan.price.seconds
        if way.method == "fused":  # whose exchanges the planner does not see
            seconds = fused_seconds(way.trace, decision, ranks)
        if best is None or seconds < best[0]:
            best = seconds, Planned(way.method, way.trace, decision, modules_of(model))
    assert best is not None
    return best[1]


def modules_of(model: nn.Module) -> tuple[tuple[str, type], ...]:
    return tuple((path, type(module)) for path, module in model.named_modules())


def _willing(graph: Graph, ranks: int) -> Mesh:
    """Rates at which all arithmetic takes as long as three switches in front of every stage.

    So running a stage replicated is dearer than switching, and a few percent of imbalance is not.
    Of plans with the same bytes the one with fewer messages is better.
    """
    size = math.prod(graph.axes.values())
    switches = sum(stage.width * size / ranks for stage in graph.stages)
    flops = sum(stage.flops for stage in graph.stages)
    link = Link(1.0, 1e-3 * switches / len(graph.stages) / ranks)
    return Mesh((ranks,), (link,), max(flops, 1.0) / (3.0 * max(switches, 1.0)))
