"""Data dependences of a SCoP, exact over integers.

Flow, output and anti dependences come from isl's value-based flow analysis (Feautrier's array
dataflow; Verdoolaege, "isl: An integer set library"): each is kept only up to the next write, so
the transitive closure of all three kinds orders every pair of conflicting accesses.

Where updates of an array are a reduction that may be reordered (:mod:`perfkit.analysis.reductions`)
that closure no longer holds: a dependence may have been covered by a chain through an update that
is now free to move. On such an array only ordinary writes end a dependence: every pair with no
ordinary write in between is one, and those between two updates by one operation are marked
``reduction``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import islpy as isl

from perfkit.analysis.fronts import Front, PairSpace
from perfkit.analysis.reductions import Reduction, reductions
from perfkit.errors import BudgetExceeded
from perfkit.ir.expr import Access
from perfkit.ir.isl import DEFAULT_MAX_OPERATIONS, Polyhedra, budget_errors
from perfkit.ir.scop import Scop, Statement

Kind = Literal["flow", "anti", "output"]
Instance = tuple[str, tuple[int, ...]]
FEW_STATEMENTS = 4
"""Statements of a SCoP up to which subtraction beats isl's dataflow analysis (measured)."""
DATAFLOW_FAULT = "domain dimensions"
"""Of the error with which isl's dataflow analysis (up to 0.27) fails on some strided domains."""
DATAFLOW_SHARE = 20
"""The part of the budget that isl's dataflow analysis may use for one array, as a divisor."""


@dataclass(frozen=True, slots=True, eq=False)
class Dependence:
    """``relation`` maps instances of ``source`` to later ones of ``target`` that must stay later.

    ``kind``: "flow" is write then read, "anti" read then write, "output" write then write. A
    ``reduction`` dependence may be reordered, but its two ends may not run at the same time unless
    the generated code privatises the array.
    """

    source: str
    target: str
    kind: Kind
    array: str
    relation: isl.Map
    reduction: bool = False

    def describe(self) -> str:
        """``S0 -> S1 (flow on A)``."""
        reduction = ", reduction" if self.reduction else ""
        return f"{self.source} -> {self.target} ({self.kind} on {self.array}{reduction})"

    @property
    def pairs(self) -> isl.Set:
        """The relation as a set of wrapped pairs ``[source -> target]``."""
        return self.relation.wrap()


def sample_pair(dependence: Dependence, pairs: isl.Set) -> tuple[Instance, Instance]:
    """One pair of instances from a non-empty set of wrapped pairs, at the smallest sizes."""
    point = pairs.sample_point()
    values = [
        point.get_coordinate_val(isl.dim_type.set, k).to_python()
        for k in range(pairs.dim(isl.dim_type.set))
    ]
    split = dependence.relation.dim(isl.dim_type.in_)
    return (
        (dependence.source, tuple(values[:split])),
        (dependence.target, tuple(values[split:])),
    )


def show_pair(pair: tuple[Instance, Instance]) -> str:
    """``S1[0, 3] -> S0[1, 2]``."""
    return " -> ".join(f"{name}[{', '.join(map(str, values))}]" for name, values in pair)


class Dependences:
    """Everything that orders the instances of ``scop``, ready for many legality questions.

    ``items`` holds one dependence per statement pair, kind and array (two where only a part is a
    reduction). ``reductions`` are the statements recognised as reordering-free updates.
    """

    def __init__(
        self,
        polyhedra: Polyhedra,
        fp: str,
        items: tuple[Dependence, ...],
        found: Mapping[str, Reduction],
    ) -> None:
        self.polyhedra = polyhedra
        self.scop = polyhedra.scop
        self.fp = fp
        self.items = items
        self.reductions = found

    def __iter__(self) -> Iterator[Dependence]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def between(self, source: str, target: str) -> tuple[Dependence, ...]:
        return tuple(d for d in self.items if d.source == source and d.target == target)

    def flows(self) -> tuple[Dependence, ...]:
        return tuple(d for d in self.items if d.kind == "flow")

    @cached_property
    def ordered(self) -> Mapping[tuple[str, str], Front]:
        """Per statement pair, every pair of instances whose order must be kept."""
        return self._fronts(reduction=False)

    @cached_property
    def relaxed(self) -> Mapping[tuple[str, str], Front]:
        """Per statement pair, the reduction pairs: reordered freely, but never concurrent."""
        return self._fronts(reduction=True)

    def forget(self) -> None:
        """Drop remembered answers, to bound memory in a long search."""
        self.__dict__.pop("ordered", None)
        self.__dict__.pop("relaxed", None)

    def _fronts(self, reduction: bool) -> Mapping[tuple[str, str], Front]:
        merged: dict[tuple[str, str], isl.Map] = {}
        for d in self.items:
            if d.reduction == reduction:
                key = (d.source, d.target)
                merged[key] = merged[key].union(d.relation) if key in merged else d.relation
        iterators = {s.name: s.iterators for s in self.scop.statements}
        result: dict[tuple[str, str], Front] = {}
        for (source, target), relation in merged.items():
            pairs = relation.coalesce().wrap()
            space = PairSpace(pairs, self.scop.parameters, iterators[source], iterators[target])
            result[source, target] = Front(space, pairs)
        return result


# -- computing them --------------------------------------------------------------------------


def _split(pairs: isl.UnionMap, kind: Kind, array: str) -> list[Dependence]:
    """Cut a relation between instances into one dependence per statement pair."""
    found: list[isl.Map] = []
    pairs.foreach_map(found.append)
    return [
        Dependence(
            m.get_tuple_name(isl.dim_type.in_), m.get_tuple_name(isl.dim_type.out), kind, array,
            m.coalesce(),
        )
        for m in found
        if not m.is_empty()
    ]  # fmt: skip


class _Accesses:
    """The accesses of a SCoP as union maps, for the arrays in ``keep``."""

    def __init__(self, poly: Polyhedra, keep: frozenset[str]) -> None:
        scop = poly.scop
        self.writes = poly.union_map(
            poly.writes[s.name] for s in scop.statements if s.write.array in keep
        )
        self.reads = poly.union_map(m for _, a, m in _read_maps(poly) if a.array in keep)
        self.schedule = poly.union_map(poly.schedule_maps(scop.tree).values())

    @property
    def ends(self) -> Mapping[Kind, tuple[isl.UnionMap, isl.UnionMap]]:
        """Source and sink accesses of each kind of dependence."""
        return {
            "flow": (self.writes, self.reads),
            "output": (self.writes, self.writes),
            "anti": (self.reads, self.writes),
        }


def _read_maps(poly: Polyhedra) -> Iterator[tuple[Statement, Access, isl.Map]]:
    for s in poly.scop.statements:
        for access, m in zip(dict.fromkeys(s.reads), poly.reads[s.name], strict=True):
            yield s, access, m


def _value_based(poly: Polyhedra, keep: frozenset[str], kinds: Iterable[Kind]) -> list[Dependence]:
    result: list[Dependence] = []
    for array in sorted(keep):
        acc = _Accesses(poly, frozenset([array]))
        for kind in kinds:
            source, sink = acc.ends[kind]
            pairs = _last(poly, source, sink, acc.writes, acc.schedule)
            result += _split(pairs, kind, array)
    return result


def _last(
    poly: Polyhedra,
    source: isl.UnionMap,
    sink: isl.UnionMap,
    kill: isl.UnionMap,
    schedule: isl.UnionMap,
) -> isl.UnionMap:
    """Pairs ``source -> later sink`` on one element with no ``kill`` access in between.

    All accesses are to one array. The two ways give the same relation; which one is fast depends on
    the program, by factors up to a hundred either way, and isl's has a bug. So isl's gets a share
    of the budget in programs of several statements, and subtraction does what that is too little
    for.
    """
    if len(poly.scop.statements) > FEW_STATEMENTS:
        poly.ctx.set_max_operations(max(1, poly.max_operations // DATAFLOW_SHARE))
        try:
            poly.renew_budget()
            with budget_errors():
                return _by_dataflow(source, sink, kill, schedule)
        except BudgetExceeded:
            pass
        except isl.Error as error:
            if DATAFLOW_FAULT not in str(error):
                raise
        finally:
            poly.ctx.set_max_operations(poly.max_operations)
            poly.renew_budget()
    return by_subtraction(source, sink, kill, schedule)


def _by_dataflow(
    source: isl.UnionMap, sink: isl.UnionMap, kill: isl.UnionMap, schedule: isl.UnionMap
) -> isl.UnionMap:
    """isl's dataflow analysis: parametric integer programming, good with many statements."""
    info = isl.UnionAccessInfo.from_sink(sink)
    # A must-source is a source and a kill at once, which isl resolves faster.
    if source is kill:
        info = info.set_must_source(source)
    else:
        info = info.set_may_source(source).set_kill(kill)
    return info.set_schedule_map(schedule).compute_flow().get_may_dependence()


def by_subtraction(
    source: isl.UnionMap, sink: isl.UnionMap, kill: isl.UnionMap, schedule: isl.UnionMap
) -> isl.UnionMap:
    """All conflicting pairs ``source -> later sink`` less those with a kill in between.

    Accesses map instances to elements. Good with few statements.
    An instance writes one element of the array, so a chain through a kill stays on one element.
    """
    before = schedule.lex_lt_union_map(schedule)

    def conflicts(first: isl.UnionMap, second: isl.UnionMap) -> isl.UnionMap:
        return first.apply_range(second.reverse()).intersect(before)

    covered = conflicts(source, kill).apply_range(conflicts(kill, sink))
    return conflicts(source, sink).subtract(covered)


def _around_updates(
    poly: Polyhedra, array: str, found: Mapping[str, Reduction]
) -> list[Dependence] | None:
    """Dependences on an array with reordered updates; None when no update meets another one."""
    scop = poly.scop
    updates = {n: r.op for n, r in found.items() if r.array == array}
    schedule = poly.union_map(poly.schedule_maps(scop.tree).values())
    write = poly.union_map(
        poly.writes[s.name]
        for s in scop.statements
        if s.write.array == array and s.name not in updates
    )
    read = poly.union_map(
        m
        for s, a, m in _read_maps(poly)
        if a.array == array and not (s.name in updates and a == s.write)
    )
    groups = {
        op: poly.union_map(poly.writes[n] for n, o in updates.items() if o == op)
        for op in dict.fromkeys(updates.values())
    }

    def between(source: isl.UnionMap, sink: isl.UnionMap, kind: Kind) -> list[Dependence]:
        return _split(_last(poly, source, sink, write, schedule), kind, array)

    relaxed = [d for group in groups.values() for d in between(group, group, "flow")]
    if not relaxed:
        return None
    result = [replace(d, reduction=True) for d in relaxed]
    result += between(write, write, "output") + between(write, read, "flow")
    result += between(read, write, "anti")
    for op, group in groups.items():
        result += between(write, group, "flow") + between(group, write, "output")
        result += between(read, group, "anti") + between(group, read, "flow")
        for other, later in groups.items():
            if other != op:
                result += between(group, later, "flow")
    return _merged(result)


def _merged(items: Iterable[Dependence]) -> list[Dependence]:
    """One dependence per statement pair, kind, array and reduction flag."""
    merged: dict[tuple[str, str, Kind, str, bool], Dependence] = {}
    for d in items:
        key = (d.source, d.target, d.kind, d.array, d.reduction)
        old = merged.get(key)
        merged[key] = replace(d, relation=old.relation.union(d.relation)) if old else d
    return list(merged.values())


def compute(poly: Polyhedra, fp: str = "strict") -> Dependences:
    """All dependences of a SCoP under its own order ``scop.tree``.

    Raises BudgetExceeded when isl needs more operations than ``poly`` allows.
    """
    scop = poly.scop
    with budget_errors():
        poly.renew_budget()
        found = reductions(poly, fp)
        items: list[Dependence] = []
        value_based = set(scop.written)
        for array in sorted({r.array for r in found.values()}):
            around = _around_updates(poly, array, found)
            if around is not None:
                items += around
                value_based.discard(array)
        items += _value_based(poly, frozenset(value_based), ("flow", "output", "anti"))
    rank = {s.name: k for k, s in enumerate(scop.statements)}
    items.sort(key=lambda d: (rank[d.source], rank[d.target], d.kind, d.array, d.reduction))
    return Dependences(poly, fp, tuple(items), found)


def value_flows(poly: Polyhedra) -> tuple[Dependence, ...]:
    """Exact value-based flow on every written array, reductions not relaxed."""
    with budget_errors():
        poly.renew_budget()
        return tuple(_value_based(poly, poly.scop.written, ("flow",)))


class Analysis:
    """The isl objects of one compilation: polyhedra and dependences of each SCoP it meets.

    Storage transforms make new SCoPs, so one script may need several. ``parallel_reductions`` says
    whether the code generator privatises the reductions that a parallel loop carries; unless it
    does, such a mark is refused.
    """

    def __init__(
        self,
        max_operations: int = DEFAULT_MAX_OPERATIONS,
        parallel_reductions: bool = False,
    ) -> None:
        self.max_operations = max_operations
        self.parallel_reductions = parallel_reductions
        self._dependences: dict[tuple[Scop, str], Dependences] = {}
        self._polyhedra: dict[Scop, Polyhedra] = {}
        self._flows: dict[Scop, tuple[Dependence, ...]] = {}
        # Hashing a SCoP walks all of it; most states share the object. It is kept beside what was
        # found, so that no other object takes over its id.
        self._objects: dict[int, tuple[Scop, Polyhedra]] = {}
        self._answers: dict[tuple[int, str], Dependences] = {}

    def polyhedra(self, scop: Scop) -> Polyhedra:
        known = self._objects.get(id(scop))
        if known is not None:
            return known[1]
        found = self._polyhedra.get(scop)
        if found is None:
            found = self._polyhedra[scop] = Polyhedra(scop, self.max_operations)
        self._objects[id(scop)] = (scop, found)
        return found

    def dependences(self, scop: Scop, fp: str = "strict") -> Dependences:
        poly = self.polyhedra(scop)
        known = self._answers.get((id(scop), fp))
        if known is not None:
            return known
        found = self._dependences.get((scop, fp))
        if found is None:
            found = self._dependences[scop, fp] = compute(poly, fp)
        self._answers[id(scop), fp] = found
        return found

    def flows(self, scop: Scop) -> tuple[Dependence, ...]:
        found = self._flows.get(scop)
        if found is None:
            found = self._flows[scop] = value_flows(self.polyhedra(scop))
        return found


def analyse(scop: Scop, fp: str = "strict") -> Dependences:
    """Dependences of one SCoP in a context of its own."""
    return Analysis().dependences(scop, fp)


__all__ = [
    "DATAFLOW_FAULT", "Analysis", "Dependence", "Dependences", "Instance", "Kind", "analyse",
    "by_subtraction", "compute", "sample_pair", "show_pair", "value_flows",
]  # fmt: skip
