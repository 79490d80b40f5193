"""From the calls of a sample run to stages, to a plan, to what each place in the model does.

Calls that no plan would separate are taken together: a call that mixes nothing runs in the layout
of its neighbour when a switch there would not be dearer. What remains, a few stages per
attention, goes to the exact planner (:mod:`perfkit.dsp.plan`). The layouts come back as
:class:`~perfkit.dsp.dispatch.Site` entries, at the few calls where a layout changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from perfkit.dsp.columns import Divided
from perfkit.dsp.dispatch import KEEP, Site, SiteKey
from perfkit.dsp.plan import Graph, Plan, assess, make_plan
from perfkit.dsp.pricing import Mesh, Passes, Pricer, Stage
from perfkit.dsp.trace import Trace
from perfkit.errors import PlanError


@dataclass
class Node:
    """Calls that run in one layout; ``closed`` ones take in no others."""

    calls: list[int]
    mixes: set[str]
    closed: bool = False
    alive: bool = field(default=True)


@dataclass(frozen=True)
class Change:
    """A change of layout in front of a call of the sample run; ``bytes`` of the whole tensor.

    ``summed``: behind it, and every rank has one term of the tensor.
    """

    call: int
    before: str | None
    after: str | None
    bytes: int
    summed: bool = False

    @property
    def kind(self) -> str:
        if self.summed:
            return "reduce_scatter"
        if self.before is None:
            return "split"
        return "gather" if self.after is None else "switch"


@dataclass(frozen=True)
class Decision:
    """A plan, and what it means for the calls of the sample run.

    ``held`` is the axis that each call holds, ``changes`` what moves in front of which call (the
    number of calls for what is gathered at the end), ``stages`` the calls of each stage.
    """

    plan: Plan
    held: tuple[str | None, ...]
    changes: tuple[Change, ...]
    sites: Mapping[SiteKey, Site]
    followed: frozenset[str]
    modules: Mapping[str, int]
    stages: tuple[tuple[int, ...], ...]
    divided: Divided


class Stages:
    """The calls of a trace, grouped.

    ``fixed`` are groups given from outside (modules of an explicit plan) with the axis that each
    is said to mix. ``divided`` are the linear layers that Megatron-SP divides.
    """

    def __init__(
        self,
        trace: Trace,
        axes: Sequence[str],
        fixed: Iterable[tuple[Sequence[int], str]] = (),
        divided: Divided | None = None,
    ) -> None:
        self.trace, self.axes = trace, list(axes)
        self.divided = divided or Divided({}, {}, ())
        features = {column.axis for column in self.divided.columns.values()}
        self.followed = _followed(trace, [*axes, *features])
        wanted = set(axes)
        self.nodes: list[Node] = []
        self.node_of: dict[int, int] = {}
        self.producer: dict[int, int] = {}
        self.consumers: dict[int, set[int]] = {}
        for calls, axis in fixed:
            self._node(calls, {axis})
        for calls in self.divided.between:
            self._node(calls, {axes[0]}, closed=True)
        for number, call in enumerate(trace.calls):
            have = self._axes(number) & wanted
            if not have:
                continue
            if number not in self.node_of:
                self._node([number], set())
            node = self.nodes[self.node_of[number]]
            node.mixes |= (call.mixed & wanted) | (wanted - have)
        for number, call in enumerate(trace.calls):
            if number in self.node_of:
                for v in call.inputs:
                    if trace.values[v].axes & wanted:
                        self.consumers.setdefault(v, set()).add(number)
                for v in call.outputs:
                    self.producer.setdefault(v, number)
        self._group()

    def _node(self, calls: Sequence[int], mixes: set[str], closed: bool = False) -> None:
        for number in calls:
            self.node_of[number] = len(self.nodes)
        self.nodes.append(Node(list(calls), mixes, closed))

    def _axes(self, number: int) -> frozenset[str]:
        """The followed axes that the inputs of a call have; none: a call on plain tensors."""
        inputs = self.trace.calls[number].inputs
        return frozenset().union(*(self.trace.values[v].axes for v in inputs)) & self.followed

    # -- grouping ----------------------------------------------------------------------------

    def inputs(self, node: int) -> set[int]:
        """Values that a node takes from others."""
        found = set()
        for number in self.nodes[node].calls:
            for v in self.trace.calls[number].inputs:
                if v in self.consumers and self._made_by(v) != node:
                    found.add(v)
        return found

    def outputs(self, node: int) -> set[int]:
        """Values that a node hands to others, or out of the model."""
        found = set()
        for number in self.nodes[node].calls:
            for v in self.trace.calls[number].outputs:
                used = {self.node_of[c] for c in self.consumers.get(v, ())} - {node}
                if used or v in self.trace.results:
                    found.add(v)
        return found

    def _made_by(self, value: int) -> int:
        call = self.producer.get(value)
        return -1 if call is None else self.node_of[call]

    def _users(self, values: Iterable[int], node: int) -> set[int]:
        found: set[int] = set()
        for v in values:
            found |= {self.node_of[c] for c in self.consumers.get(v, ())}
            if v in self.trace.results:
                found.add(-2)
        return found - {node}

    def _bytes(self, values: Iterable[int]) -> int:
        return sum(self.trace.values[v].bytes for v in values)

    def _group(self) -> None:
        changed = True
        while changed:
            changed = False
            for node in range(len(self.nodes)):
                if self.nodes[node].alive and self._merge_one(node):
                    changed = True

    def _merge_one(self, node: int) -> bool:
        ins, outs = self.inputs(node), self.outputs(node)
        before = {self._made_by(v) for v in ins}
        if len(before) == 1 and -1 not in before:
            (other,) = before
            alone = self._users(ins, other) == {node}
            fits = self._fits(node, other)
            if alone and fits and self._bytes(outs) <= self._bytes(ins):
                self._merge(node, other)
                return True
        after = self._users(outs, node)
        if len(after) == 1 and -2 not in after and -1 not in before:
            (other,) = after
            fits = self._fits(node, other)
            if fits and self._bytes(ins) <= self._bytes(outs):
                self._merge(node, other)
                return True
        return False

    def _fits(self, node: int, other: int) -> bool:
        left, right = self.nodes[node], self.nodes[other]
        return left.mixes <= right.mixes and not (left.closed or right.closed)

    def _merge(self, node: int, other: int) -> None:
        for number in self.nodes[node].calls:
            self.node_of[number] = other
        self.nodes[other].calls = sorted([*self.nodes[other].calls, *self.nodes[node].calls])
        self.nodes[node].alive = False
        self.nodes[node].calls = []

    # -- planning ----------------------------------------------------------------------------

    def graph(self) -> tuple[Graph, list[int]]:
        """The planner's graph and the nodes that its stages are."""
        order = self._order()
        position = {node: i for i, node in enumerate(order)}
        lengths = {name: self.trace.lengths[name] for name in self.axes}
        size = math.prod(lengths.values())
        stages, edges, widths = [], set(), []
        for node in order:
            ins, outs = self.inputs(node), self.outputs(node)
            for v in ins:
                if self._made_by(v) >= 0:
                    edges.add((position[self._made_by(v)], position[node]))
            flops = sum(self.trace.calls[c].flops for c in self.nodes[node].calls)
            width = -(-self._bytes(ins) // size)
            widths.append(-(-self._bytes(outs) // size))
            mixes = frozenset(self.nodes[node].mixes)
            stages.append(Stage(self.name(node), mixes, width, flops))
        return Graph(
            lengths, tuple(stages), tuple(sorted(edges)), (None,), (None,), tuple(widths)
        ), order

    def name(self, node: int) -> str:
        """The module that the calls of a node share, and its first call."""
        calls = [self.trace.calls[c] for c in self.nodes[node].calls]
        heavy = max(calls, key=lambda c: c.flops)
        frames = [path for path, _ in heavy.frames]
        for other in calls:
            if self.nodes[node].mixes and other.mixed & self.nodes[node].mixes:
                frames = [path for path, _ in other.frames]
                break
        return frames[-1] if frames else f"({heavy.function})"

    def _order(self) -> list[int]:
        done: set[int] = set()
        order: list[int] = []
        left = [n for n in range(len(self.nodes)) if self.nodes[n].alive]
        left.sort(key=lambda n: self.nodes[n].calls[0])
        needs = {n: {self._made_by(v) for v in self.inputs(n)} - {-1} for n in left}
        while left:
            ready = next((n for n in left if needs[n] <= done), None)
            if ready is None:
                raise PlanError("an explicit plan's modules depend on each other in a circle")
            order.append(ready)
            done.add(ready)
            left.remove(ready)
        return order

    def decide(self, mesh: Mesh, passes: Passes) -> Decision:
        """Plan, and say what every call does."""
        graph, order = self.graph()
        if self.divided.columns:  # what is not divided by width stays sharded
            axis = self.axes[0]
            layouts = [(None if axis in stage.mixes else axis,) for stage in graph.stages]
            plan = assess(graph, Pricer(graph.axes, mesh, passes), layouts)
        else:
            plan = make_plan(graph, mesh, passes)
        layout_of = {node: plan.layouts[i][0] for i, node in enumerate(order)}
        wanted = [
            layout_of[self.node_of[c]] if c in self.node_of else KEEP
            for c in range(len(self.trace.calls))
        ]
        held, differs, changes = self._simulate(wanted)
        sites, modules = self._sites(differs)
        stages = tuple(tuple(self.nodes[n].calls) for n in order)
        return Decision(
            plan, held, changes, sites, self.followed, modules, stages, self.divided
        )

    def _simulate(
        self, wanted: Sequence[str | None]
    ) -> tuple[tuple[str | None, ...], dict[int, str | None], tuple[Change, ...]]:
        """What every call holds, the calls that would not do so by themselves, what moves."""
        moved: dict[tuple[int, str | None], Change] = {}
        now: dict[int, str | None] = {}
        held: list[str | None] = []
        features = {column.axis for column in self.divided.columns.values()}
        differs: dict[int, str | None] = {}
        for number, call in enumerate(self.trace.calls):
            default = next(
                (
                    now[v]
                    for v in call.inputs
                    if now.get(v) is not None and now[v] not in call.mixed
                ),
                None,
            )
            want = wanted[number]
            have = self._axes(number)
            if want == KEEP:
                want = default
            elif want is not None and (want not in have or want in call.mixed):
                want = None
            column, row = self.divided.columns.get(number), self.divided.rows.get(number)
            if column is not None:
                want = None
            elif row is not None:
                want = row
            elif default in features:
                want = default
            elif want != default:
                differs[number] = want
            held.append(column.axis if column is not None else want)
            for v in call.inputs:
                value, before = self.trace.values[v], now.get(v)
                after = want if want in value.axes else None
                if value.axes & self.followed and before != after:
                    moved.setdefault((v, after), Change(number, before, after, value.bytes))
            for v in call.outputs:
                value = self.trace.values[v]
                if row is not None:
                    want = self.axes[0]
                    moved[(v, want)] = Change(number, row, want, value.bytes, summed=True)
                elif column is not None:
                    want = column.axis
                now[v] = want if want in value.axes else None
        for v in self.trace.results:
            if now.get(v) is not None:
                end = Change(len(held), now[v], None, self.trace.values[v].bytes)
                moved.setdefault((v, None), end)
        return tuple(held), differs, tuple(moved.values())

    def _sites(
        self, differs: Mapping[int, str | None]
    ) -> tuple[dict[SiteKey, Site], dict[str, int]]:
        """Sites, counted in the innermost modules that have one, and those modules."""
        needed = {
            number
            for number, call in enumerate(self.trace.calls)
            if number in differs
            or number in self.divided.columns
            or number in self.divided.rows
            or self._fresh(number)
        }
        calls = self.trace.calls
        framed = {calls[n].frames[-1][0] for n in needed if calls[n].frames}
        counts: dict[tuple[str, int], int] = {}
        sites: dict[SiteKey, Site] = {}
        for number, call in enumerate(calls):
            if not self._axes(number):
                continue  # on plain tensors when the plan runs, so not counted there
            frame = next((f for f in reversed(call.frames) if f[0] in framed), ("", 0))
            at = counts.get(frame, 0)
            counts[frame] = at + 1
            if number in needed:
                sites[*frame, at] = Site(
                    call.function,
                    differs.get(number, KEEP),
                    self._fresh(number),
                    self.divided.columns.get(number),
                    self.axes[0] if number in self.divided.rows else None,
                )
        return sites, {path: self.trace.calls_of[path] for path in framed}

    def _fresh(self, number: int) -> tuple[tuple[str, int], ...]:
        if number in self.divided.columns:
            return ()
        return tuple((n, d) for n, d in self.trace.calls[number].fresh if n in self.followed)


def _followed(trace: Trace, axes: Sequence[str]) -> frozenset[str]:
    """The axes planned with, and others that lead a run to the calls where those come in.

    A call is only seen when one of its inputs has a followed axis.
    """
    followed = set(axes)
    changed = True
    while changed:
        changed = False
        for call in trace.calls:
            have = set().union(*(trace.values[v].axes for v in call.inputs))
            if any(n in followed for n, _ in call.fresh) and have and not have & followed:
                followed.add(min(have))
                changed = True
    return frozenset(followed)
