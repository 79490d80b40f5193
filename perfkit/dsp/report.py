"""What a parallelized model does, as text: layouts, what moves, what it costs, what stays whole."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from perfkit.comm.shards import shard_length
from perfkit.cost.transfer import Link, transfer
from perfkit.dsp.parallel import Parallel, arguments, state_of
from perfkit.dsp.stages import Change
from perfkit.dsp.trace import bound

# Where no rates are given: NVLink of an H100 node, and loopback TCP.
_GPU, _CPU = Link(450e9, 8e-6), Link(2e9, 50e-6)


def explain(model: nn.Module, batch: Any = None, *, link: Link | None = None) -> str:
    """Each stage of a parallelized model: what it mixes, what it is sharded on, what moves.

    Bytes are those that a rank sends forward for the sample's shapes; predicted times follow the
    alpha-beta model of ``link`` (by default an H100 node, or loopback on a CPU). With ``batch``,
    arguments of one call, the model runs twice and changes of layout are timed, waiting included;
    then every rank must call this.

    Raises:
        PlanError: the model is not parallelized.
    """
    state = state_of(model)
    if link is None:
        first = next(model.parameters(), None)
        link = _GPU if first is not None and first.is_cuda else _CPU
    measured = _measured(model, state, batch) if batch is not None else {}
    lines = [
        f"{type(model).__name__} on {state.ranks} ranks by {state.method}; axes: "
        + ", ".join(f"{n} ({length})" for n, length in state.decision.plan.graph.axes.items())
    ]
    lines += _stages(state, link, measured)
    lines += _ending(state, link, measured)
    return "\n".join(lines)


@dataclass
class Clock:
    """Seconds of every change of layout, by module and change."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def add(self, label: str, seconds: float) -> None:
        self.seconds[label] = self.seconds.get(label, 0.0) + seconds


def _measured(model: nn.Module, state: Parallel, batch: Any) -> Mapping[str, float]:
    given = bound(model, *arguments(batch))
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    clock = Clock(device)
    with torch.no_grad():
        model(**given)
        with state.timed(clock):
            model(**given)
    return clock.seconds


def _where(state: Parallel, change: Change) -> str:
    """The module in front of which a change happens, as in the counters."""
    if change.call >= len(state.trace.calls):
        return "output"
    frames = [path for path, _ in state.trace.calls[change.call].frames]
    return next((p for p in reversed(frames) if p in state.decision.modules), "")


def _sent(state: Parallel, change: Change) -> int:
    """Bytes that the busiest rank sends, forward."""
    if change.before is None:
        return 0
    lengths, ranks = state.trace.lengths, state.ranks
    if change.summed:
        axis = change.after or ""
        return round(change.bytes * (1 - shard_length(lengths[axis], ranks, 0) / lengths[axis]))
    mine = change.bytes * shard_length(lengths[change.before], ranks, 0) / lengths[change.before]
    if change.after is None:
        return round(mine * (ranks - 1))
    kept = shard_length(lengths[change.after], ranks, 0) / lengths[change.after]
    return round(mine * (1 - kept))


def _changes(
    state: Parallel, link: Link, measured: Mapping[str, float], first: int, last: int
) -> Iterator[str]:
    for change in state.decision.changes:
        if not first <= change.call < last or (change.kind == "split" and state.ranks == 1):
            continue
        sent, where = _sent(state, change), _where(state, change)
        after = change.after or "replicated"
        text = f"  {change.kind} {change.before or 'replicated'} -> {after}"
        text += f" in {where or 'the model'}" if where != "output" else " at the output"
        if sent:
            predicted = transfer(sent, state.ranks - 1, link)
            text += f": {sent} bytes, predicted {predicted * 1e3:.3f} ms"
        label = f"{where}: {change.before} -> {after}" if where else f"{change.before} -> {after}"
        if label in measured:
            text += f", measured {measured[label] * 1e3:.3f} ms"
        yield text


def _stages(state: Parallel, link: Link, measured: Mapping[str, float]) -> Iterator[str]:
    plan = state.decision.plan
    for stage, calls, layout in zip(
        plan.graph.stages, state.decision.stages, plan.layouts, strict=True
    ):
        held = layout[0]
        width = {state.decision.held[c] for c in calls if c in state.decision.divided.columns}
        how = f"sharded on {held}" if held is not None else "replicated"
        if width:
            how = f"width divided by {', '.join(sorted(map(str, width)))}"
        if any(held in state.trace.calls[c].rounds for c in calls):
            fused = state.method == "fused"
            how += ", switched inside the attention" if fused else ", keys and values go round"
        mixes = {n for c in calls for n in state.trace.calls[c].mixed} & set(plan.graph.axes)
        yield f"{stage.name}: mixes {', '.join(sorted(mixes)) or 'nothing'}; {how}"
        for change in state.decision.changes:
            if change.call in calls:
                yield from _changes(state, link, measured, change.call, change.call + 1)
        if held is None and not width:
            yield f"  because {_why(state, calls, stage.mixes)}"


def _why(state: Parallel, calls: tuple[int, ...], mixes: frozenset[str]) -> str:
    """Why a stage is replicated."""
    axes = set(state.decision.plan.graph.axes)
    for number in calls:
        call = state.trace.calls[number]
        if axes <= call.mixed:
            return f"{call.function} mixes every axis, or has no rule"
    if axes <= mixes:
        return "its tensors have no axis that it could hold"
    return "sharding it would cost more than it saves"


def _ending(state: Parallel, link: Link, measured: Mapping[str, float]) -> Iterator[str]:
    end = len(state.trace.calls)
    yield from _changes(state, link, measured, end, end + 1)
    changes = state.decision.changes
    sent = sum(_sent(state, change) for change in changes)
    switches = sum(change.kind == "switch" for change in changes)
    gathers = sum(change.kind == "gather" for change in changes)
    yield f"total forward: {switches} switches, {gathers} gathers, {sent} bytes sent per rank"
    if state.planned.prices is not None:
        yield state.planned.prices.line()
    planned = set(state.decision.plan.graph.axes)
    left = sorted(set(state.trace.attended()) - planned - state.trace.features)
    if left:
        yield f"not sharded: {', '.join(left)} (attended over, but no other stage carries them)"
    for function, where in state.trace.lost.items():
        yield f"no rule for {function} (in {where or 'the model'}): it runs on whole tensors"
