"""The cheapest layout for every stage of a model: exact, on chains and on small DAGs.

A :class:`Graph` has stages and edges (producer, consumer). Its price is what its stages cost in
their layouts plus, for every tensor, one change of layout for each other layout in which it is
consumed (two consumers that want the same share one change). The search goes through the stages
in order and keeps, for each assignment of the tensors still to be consumed, the partial plans that
no other beats in both time and memory; nothing else is dropped, so the result is exact. On a chain
one tensor is alive at a time and this is the shortest path; on a DAG the work grows with the
number of tensors alive at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from perfkit.dsp.pricing import Layout, Mesh, Passes, Price, Pricer, Stage
from perfkit.errors import PlanError

DEFAULT_LIMIT = 200_000


@dataclass(frozen=True)
class Graph:
    """Stages in an order in which they can run, the axes' lengths, and who consumes what.

    ``edges`` are pairs of positions in ``stages``. ``start`` is the layout in which the model's
    input arrives at stages without a producer, ``end`` the one in which results of stages without
    a consumer are wanted; None leaves them free. ``widths`` is the bytes per position that each
    stage hands on; None takes the width of its first consumer's input.

    Raises:
        PlanError: an edge that goes backwards, a stage that mixes an axis that does not exist.
    """

    axes: Mapping[str, int]
    stages: tuple[Stage, ...]
    edges: tuple[tuple[int, int], ...]
    start: Layout | None = None
    end: Layout | None = None
    widths: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.stages:
            raise PlanError("there is no stage to plan")
        for producer, consumer in self.edges:
            if not 0 <= producer < consumer < len(self.stages):
                raise PlanError(
                    f"edge {producer} -> {consumer}: stages are numbered in the order they run"
                )
        for stage in self.stages:
            unknown = stage.mixes - set(self.axes)
            if unknown:
                raise PlanError(
                    f"stage {stage.name!r} mixes {sorted(unknown)}; axes: {sorted(self.axes)}"
                )

    @staticmethod
    def chain(
        axes: Mapping[str, int],
        stages: Sequence[Stage],
        start: Layout | None = None,
        end: Layout | None = None,
    ) -> Graph:
        """Stages that run one after the other on one tensor."""
        edges = tuple((i, i + 1) for i in range(len(stages) - 1))
        return Graph(axes, tuple(stages), edges, start, end)

    def producers(self, stage: int) -> list[int]:
        return [p for p, c in self.edges if c == stage]

    def consumers(self, stage: int) -> list[int]:
        return [c for p, c in self.edges if p == stage]


@dataclass(frozen=True)
class Plan:
    """A layout for every stage, and what the whole costs per step.

    ``changes`` lists (producer, from, to, price) of every change of layout; producer is -1 for
    the input. ``kept`` is the most bytes a rank keeps for the backward pass.
    """

    graph: Graph
    layouts: tuple[Layout, ...]
    price: Price
    kept: float
    changes: tuple[tuple[int, Layout, Layout, Price], ...]
    modes: tuple[str, ...]

    @property
    def switches(self) -> int:
        """Changes from one sharded axis to another."""
        return sum(None not in before and None not in after for _, before, after, _ in self.changes)

    def explain(self) -> str:
        """The plan as text: how each stage runs, and what moves between them."""
        lines = []
        for position, (stage, mode) in enumerate(zip(self.graph.stages, self.modes, strict=True)):
            mixes = ", ".join(sorted(stage.mixes)) or "nothing"
            lines.append(f"{stage.name}: mixes {mixes}; {mode}")
            lines += [
                f"  then {_name(before)} -> {_name(after)}: {price.sent} bytes sent per rank, "
                f"{price.seconds * 1e6:.1f} us"
                for producer, before, after, price in self.changes
                if producer == position
            ]
        first = [
            f"input: {_name(before)} -> {_name(after)}: {price.sent} bytes sent per rank, "
            f"{price.seconds * 1e6:.1f} us"
            for producer, before, after, price in self.changes
            if producer == -1
        ]
        total = f"total: {self.price.seconds * 1e6:.1f} us predicted"
        return "\n".join([*first, *lines, f"{total}, {self.price.sent} bytes sent per rank"])


def _name(layout: Layout) -> str:
    return " x ".join(name or "replicated" for name in layout)


# An alive tensor: (producer, its layout, layouts already paid for). The input is producer -1.
_Alive = tuple[int, Layout | None, frozenset[Layout]]
_Key = tuple[_Alive, ...]


@dataclass(frozen=True, slots=True)
class _Partial:
    """A plan of the first stages; the chain of ``before`` spells out their layouts."""

    seconds: float
    kept: float
    layout: Layout | None = None
    before: _Partial | None = field(default=None, repr=False)


def make_plan(
    graph: Graph, mesh: Mesh, passes: Passes | None = None, limit: int = DEFAULT_LIMIT
) -> Plan:
    """The cheapest plan; among equals the one found first, which depends on nothing but the graph.

    Raises:
        PlanError: no layout fits the memory or the stages, or more than ``limit`` partial plans
            are alive at once (a DAG too large for an exact search).
    """
    pricer = Pricer(graph.axes, mesh, passes or Passes())
    layouts = pricer.layouts(graph.axes)
    for wanted in (graph.start, graph.end):
        if wanted is not None and wanted not in layouts:
            raise PlanError(f"layout {wanted} does not exist on axes {list(graph.axes)}")
    last = {p: max(graph.consumers(p), default=p) for p in range(len(graph.stages))}
    heads = [s for s in range(len(graph.stages)) if not graph.producers(s)]
    last[-1] = max(heads)
    start: _Alive = (-1, graph.start, frozenset())
    front: dict[_Key, list[_Partial]] = {(start,): [_Partial(0.0, 0.0)]}
    for position, stage in enumerate(graph.stages):
        grown: dict[_Key, list[_Partial]] = {}
        for key, partials in front.items():
            for layout in layouts:
                ran = pricer.run(stage, layout)
                if ran is None:
                    continue
                fed, moved_in = _feed(graph, pricer, key, position, layout)
                out = 0.0
                if position not in {p for p, _ in graph.edges} and graph.end is not None:
                    width = stage.width if graph.widths is None else graph.widths[position]
                    out = pricer.change(layout, graph.end, width).seconds
                alive = tuple(a for a in fed if last[a[0]] > position)
                if last[position] > position:
                    alive = (*alive, (position, layout, frozenset()))
                kept, work = pricer.memory(stage, layout)
                for partial in partials:
                    total = partial.kept + kept
                    if mesh.memory is not None and total + work > mesh.memory:
                        continue
                    seconds = partial.seconds + moved_in + ran.seconds + out
                    _keep(grown.setdefault(alive, []), _Partial(seconds, total, layout, partial))
        if sum(map(len, grown.values())) > limit:
            raise PlanError(
                f"more than {limit} partial plans at stage {stage.name!r}: too many tensors are "
                "alive at once for an exact search"
            )
        front = {key: partials for key, partials in grown.items() if partials}
        if not front:
            raise PlanError(_why_none(graph, pricer, stage))
    best = min((p for partials in front.values() for p in partials), key=lambda p: p.seconds)
    chosen: list[Layout] = []
    at: _Partial | None = best
    while at is not None and at.layout is not None:
        chosen.append(at.layout)
        at = at.before
    return assess(graph, pricer, tuple(reversed(chosen)))


def _keep(partials: list[_Partial], new: _Partial) -> None:
    """Add a partial plan unless another is at least as good in time and memory."""
    if any(p.seconds <= new.seconds and p.kept <= new.kept for p in partials):
        return
    partials[:] = [p for p in partials if p.seconds < new.seconds or p.kept < new.kept]
    partials.append(new)


def _feed(
    graph: Graph, pricer: Pricer, key: _Key, position: int, layout: Layout
) -> tuple[_Key, float]:
    """The tensors after a stage has taken its inputs in ``layout``, and the seconds it took."""
    producers = graph.producers(position) or [-1]
    seconds = 0.0
    fed: list[_Alive] = []
    for producer, held, paid in key:
        if producer in producers and held is not None and held != layout and layout not in paid:
            seconds += pricer.change(held, layout, _width(graph, producer)).seconds
            paid = paid | {layout}
        fed.append((producer, held, paid))
    return tuple(fed), seconds


def _width(graph: Graph, producer: int) -> int:
    """Bytes per position of what a producer hands on, by default its first consumer's input."""
    if producer == -1:
        return next(s.width for i, s in enumerate(graph.stages) if not graph.producers(i))
    if graph.widths is not None:
        return graph.widths[producer]
    return graph.stages[graph.consumers(producer)[0]].width


def assess(graph: Graph, pricer: Pricer, layouts: Sequence[Layout]) -> Plan:
    """What given layouts cost, change by change; independent of how they were found.

    Raises:
        PlanError: a stage cannot run in its layout.
    """
    total, kept = Price(), 0.0
    changes: list[tuple[int, Layout, Layout, Price]] = []
    wanted: dict[int, list[Layout]] = {}
    for position, (stage, layout) in enumerate(zip(graph.stages, layouts, strict=True)):
        ran = pricer.run(stage, layout)
        if ran is None:
            raise PlanError(
                f"stage {stage.name!r} mixes {sorted(stage.mixes)} and cannot run on {layout}"
            )
        total += ran
        kept += pricer.memory(stage, layout)[0]
        for producer in graph.producers(position) or [-1]:
            wanted.setdefault(producer, []).append(layout)
        if not graph.consumers(position) and graph.end is not None:
            wanted.setdefault(position, []).append(graph.end)
    for producer, targets in sorted(wanted.items()):
        held = graph.start if producer == -1 else layouts[producer]
        for target in dict.fromkeys(targets):
            if held is None or held == target:
                continue
            final = producer >= 0 and not graph.consumers(producer)
            known = not final or graph.widths is not None
            width = _width(graph, producer) if known else graph.stages[producer].width
            price = pricer.change(held, target, width)
            changes.append((producer, held, target, price))
            total += price
    modes = tuple(pricer.mode(s, x) for s, x in zip(graph.stages, layouts, strict=True))
    return Plan(graph, tuple(layouts), total, kept, tuple(changes), modes)


def _why_none(graph: Graph, pricer: Pricer, stage: Stage) -> str:
    limit = pricer.mesh.memory
    runs = any(pricer.run(stage, x) is not None for x in pricer.layouts(graph.axes))
    if runs and limit is not None:
        return (
            f"no plan fits {limit:.0f} bytes per rank: stage {stage.name!r} does not fit any more"
        )
    return f"stage {stage.name!r} cannot run in any layout"
