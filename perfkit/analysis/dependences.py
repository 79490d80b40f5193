"""Data dependences of a SCoP, exact over integers.

Flow, output and anti dependences come from isl's value-based flow analysis (Feautrier's array
dataflow; Verdoolaege, "isl: An integer set library"): each is kept only up to the next write, so
the transitive closure of all three kinds orders every pair of conflicting accesses.

Where updates of an array are a reduction that may be reordered (:mod:`perfkit.analysis.reductions`)
that closure no longer holds: a dependence may have been covered by a chain through an update that
is now free to move. All dependences on such an array are therefore memory-based, every conflicting
pair, and those between two updates with the same operation are marked ``reduction``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import islpy as isl

from perfkit.analysis.fronts import Front, PairSpace
from perfkit.analysis.reductions import Reduction, reductions
from perfkit.ir.isl import DEFAULT_MAX_OPERATIONS, Polyhedra, budget_errors
from perfkit.ir.scop import Scop

Kind = Literal["flow", "anti", "output"]
Instance = tuple[str, tuple[int, ...]]


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


def _split(poly: Polyhedra, kind: Kind, flow: isl.UnionMap) -> list[Dependence]:
    """Cut isl's ``S -> [T -> A]`` into one dependence per statement pair and array."""
    found: list[isl.Map] = []
    flow.foreach_map(found.append)
    result = []
    for full in found:
        array = full.range().unwrap().get_tuple_name(isl.dim_type.out)
        relation = full.range_factor_domain().coalesce()
        source = relation.get_tuple_name(isl.dim_type.in_)
        target = relation.get_tuple_name(isl.dim_type.out)
        if not relation.is_empty():
            result.append(Dependence(source, target, kind, array, relation))
    return result


class _Accesses:
    """The accesses of a SCoP as union maps, for the arrays in ``keep``."""

    def __init__(self, poly: Polyhedra, keep: frozenset[str]) -> None:
        scop = poly.scop
        self.writes = poly.union_map(
            poly.writes[s.name] for s in scop.statements if s.write.array in keep
        )
        self.reads = poly.union_map(
            m
            for s in scop.statements
            for a, m in zip(dict.fromkeys(s.reads), poly.reads[s.name], strict=True)
            if a.array in keep
        )
        self.schedule = poly.union_map(poly.schedule_maps(scop.tree).values())


def _value_based(poly: Polyhedra, keep: frozenset[str], kinds: Iterable[Kind]) -> list[Dependence]:
    if not keep:
        return []
    acc = _Accesses(poly, keep)
    result: list[Dependence] = []
    for kind in kinds:
        try:
            result += _split(poly, kind, _isl_flow(acc, kind))
        except isl.Error as error:
            if "domain dimensions" not in str(error):
                raise
            # isl 0.27 and before fail so on some strided triangular domains.
            result += _by_subtraction(poly, acc, kind)
    return result


def _isl_flow(acc: _Accesses, kind: Kind) -> isl.UnionMap:
    """isl's dataflow analysis: ``source -> [target -> element]``."""
    info = isl.UnionAccessInfo.from_sink(acc.reads if kind == "flow" else acc.writes)
    if kind == "anti":
        # A read is ordered before the next write only; kills end at writes in between.
        info = info.set_may_source(acc.reads).set_kill(acc.writes)
    else:
        info = info.set_must_source(acc.writes)
    return info.set_schedule_map(acc.schedule).compute_flow().get_full_may_dependence()


def _by_subtraction(poly: Polyhedra, acc: _Accesses, kind: Kind) -> list[Dependence]:
    """The same relation as all conflicting pairs less those with a write in between.

    An instance writes one element, so a chain through a write stays on one element. Slower than
    isl's analysis, and needs no parametric integer programming.
    """
    before = acc.schedule.lex_lt_union_map(acc.schedule)

    def conflicts(first: isl.UnionMap, second: isl.UnionMap) -> isl.UnionMap:
        return first.apply_range(second.reverse()).intersect(before)

    rewritten = conflicts(acc.writes, acc.writes)
    if kind == "flow":
        pairs = conflicts(acc.writes, acc.reads)
        pairs = pairs.subtract(rewritten.apply_range(pairs))
    elif kind == "output":
        pairs = rewritten.subtract(rewritten.apply_range(rewritten))
    else:
        pairs = conflicts(acc.reads, acc.writes)
        pairs = pairs.subtract(pairs.apply_range(rewritten))
    found: list[isl.Map] = []
    pairs.foreach_map(found.append)
    result = []
    for relation in found:
        source = relation.get_tuple_name(isl.dim_type.in_)
        target = relation.get_tuple_name(isl.dim_type.out)
        array = poly.scop.statement(target if kind == "anti" else source).write.array
        if not relation.is_empty():
            result.append(Dependence(source, target, kind, array, relation.coalesce()))
    return result


def _memory_based(poly: Polyhedra, array: str, found: Mapping[str, Reduction]) -> list[Dependence]:
    """Every ordered pair of conflicting accesses to one array."""
    scop = poly.scop
    schedules = poly.schedule_maps(scop.tree)
    # (statement, is a write, operation when the access is a reduction's update, map)
    accesses: list[tuple[str, bool, str | None, isl.Map]] = []
    for s in scop.statements:
        reduction = found.get(s.name)
        op = reduction.op if reduction and reduction.array == array else None
        if s.write.array == array:
            accesses.append((s.name, True, op, poly.writes[s.name]))
        for access, m in zip(dict.fromkeys(s.reads), poly.reads[s.name], strict=True):
            if access.array == array:
                accesses.append((s.name, False, op if access == s.write else None, m))
    merged: dict[tuple[str, str, Kind, bool], isl.Map] = {}
    for source, first_writes, first_op, first in accesses:
        for target, second_writes, second_op, second in accesses:
            if not (first_writes or second_writes):
                continue
            kind: Kind = (
                "output" if first_writes and second_writes else "flow" if first_writes else "anti"
            )
            relation = first.apply_range(second.reverse())
            relation = relation.intersect(schedules[source].lex_lt_map(schedules[target]))
            if relation.is_empty():
                continue
            key = (source, target, kind, first_op is not None and first_op == second_op)
            merged[key] = merged[key].union(relation) if key in merged else relation
    return [
        Dependence(source, target, kind, array, relation.coalesce(), relaxed)
        for (source, target, kind, relaxed), relation in merged.items()
    ]


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
            memory = _memory_based(poly, array, found)
            if any(d.reduction for d in memory):
                items += memory
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
        # Hashing a SCoP walks all of it; states of one script share the object.
        self._recent: tuple[Scop, str, Dependences] | None = None

    def polyhedra(self, scop: Scop) -> Polyhedra:
        found = self._polyhedra.get(scop)
        if found is None:
            found = self._polyhedra[scop] = Polyhedra(scop, self.max_operations)
        return found

    def dependences(self, scop: Scop, fp: str = "strict") -> Dependences:
        recent = self._recent
        if recent is not None and recent[0] is scop and recent[1] == fp:
            return recent[2]
        found = self._dependences.get((scop, fp))
        if found is None:
            found = compute(self.polyhedra(scop), fp)
            self._dependences[scop, fp] = found
        self._recent = (scop, fp, found)
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
    "Analysis", "Dependence", "Dependences", "Instance", "Kind", "analyse", "compute",
    "sample_pair", "show_pair", "value_flows",
]  # fmt: skip
