"""Value flow: which instance produced the value that another one reads, and whether it is kept.

A memory dependence says that two instances touch one element; a *flow* says that the value which
one of them wrote is the value which the other one reads (Feautrier, "Dataflow analysis of array and
scalar references", 1991). Storage transforms change memory dependences on purpose, so the proof
that a program still computes the same is that every flow of the original survives, from the values
that come in to the values that go out: :func:`preserves_flow`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import islpy as isl

from perfkit.analysis.dependences import DATAFLOW_FAULT, by_subtraction
from perfkit.analysis.reductions import neutral_of, reductions
from perfkit.errors import BudgetExceeded, IllegalSchedule
from perfkit.ir.affine import Affine
from perfkit.ir.expr import (
    Access,
    Binary,
    Const,
    Expr,
    Load,
    Scalar,
    Unary,
    loads,
    transform,
    walk,
)
from perfkit.ir.isl import DEFAULT_MAX_OPERATIONS, Polyhedra, budget_errors
from perfkit.ir.scop import Scop, Statement
from perfkit.ir.tree import Node, padded_vectors
from perfkit.schedule.state import State

IN, OUT = isl.dim_type.in_, isl.dim_type.out
LIVE_IN = "in__"
"""Prefix of the tuples that stand for the values which elements hold before the region runs."""
_READ, _FINAL = "rd__", "fin__"


def pieces_of(union: isl.UnionMap) -> list[isl.Map]:
    """The maps of a union, one per pair of spaces."""
    found: list[isl.Map] = []
    union.foreach_map(found.append)
    return found


def _accumulates(statement: Statement, k: int) -> bool:
    """Is load ``k`` of a reduction its accumulator?"""
    return statement.reads[k] == statement.write


class Flows:
    """The value-based flow of a SCoP whose statements run in the order of ``tree``.

    ``sources[S, k]`` maps an instance of statement ``S`` to what its load number ``k`` (in
    ``S.reads``) yields: the instance that wrote the value, or ``in__A[x]`` for the value that
    element ``x`` of ``A`` held before. ``final[A]`` maps ``A[x]`` to what the element holds after.

    ``unordered`` maps reductions to groups; the updates of a group may come in any order. A load
    then has *every* update since the last ordinary write as its sources, and what the accumulator
    of an update takes from its own group is left out. ``subtracting`` is slower, and independent
    of isl's dataflow analysis.
    """

    def __init__(
        self,
        poly: Polyhedra,
        tree: Node,
        arrays: Iterable[str] | None = None,
        unordered: Mapping[str, str] | None = None,
        subtracting: bool = False,
    ) -> None:
        self.poly = poly
        self.subtracting = subtracting
        self.scop = poly.scop
        self.unordered = dict(unordered or {})
        self.arrays = (
            frozenset(a.name for a in self.scop.arrays) if arrays is None else frozenset(arrays)
        )
        self.sources: dict[tuple[str, int], isl.UnionMap] = {}
        self.final: dict[str, isl.UnionMap] = {}
        poly.renew_budget()
        with budget_errors():
            self._compute(padded_vectors(tree))

    def _compute(self, vectors: dict[str, tuple[Affine, ...]]) -> None:
        poly, scop = self.poly, self.scop
        depth = max((len(v) for v in vectors.values()), default=0)
        sinks: list[isl.Map] = []
        musts: list[isl.Map] = []
        mays: list[isl.Map] = []
        order: list[isl.Map] = []
        aliases: dict[str, tuple[str, int]] = {}
        for s in scop.statements:
            # The leading 0 puts everything before the final reads, the last one a statement's
            # loads before its own write.
            vector = "0, " + "".join(f"{v}, " for v in vectors[s.name])
            order.append(self._time(s.name, s.iterators, vector + "1"))
            if s.write.array in self.arrays:
                (mays if s.name in self.unordered else musts).append(poly.writes[s.name])
            for k, access in enumerate(s.reads):
                if access.array not in self.arrays:
                    continue
                alias = f"{_READ}{k}_{s.name}"
                aliases[alias] = (s.name, k)
                order.append(self._time(alias, s.iterators, vector + "0"))
                sinks.append(poly.access_map(s, access).set_tuple_name(IN, alias))
        finals: dict[str, str] = {}
        for array in scop.arrays:
            if array.local or array.name not in self.arrays:
                continue
            alias = f"{_FINAL}{array.name}"
            finals[alias] = array.name
            dims = tuple(f"x{d}" for d in range(array.rank))
            box = element_box(poly, array.name).intersect_params(poly.context)
            sinks.append(box.identity().set_tuple_name(IN, alias))
            order.append(self._time(alias, dims, "1" + ", 0" * (depth + 1)))

        compute = _subtracted if self.subtracting else _analysed
        dependence, unwritten = compute(*map(poly.union_map, (sinks, musts, mays, order)))
        found: dict[str, list[isl.Map]] = {alias: [] for alias in (*aliases, *finals)}
        for m in pieces_of(dependence):
            found[m.get_tuple_name(OUT)].append(m.reverse())
        for m in pieces_of(unwritten):
            element = m.get_tuple_name(OUT)
            found[m.get_tuple_name(IN)].append(m.set_tuple_name(OUT, LIVE_IN + element))
        for alias, (name, k) in aliases.items():
            group = self.unordered.get(name)
            peers = group is not None and _accumulates(scop.statement(name), k)
            self.sources[name, k] = poly.union_map(
                m.set_tuple_name(IN, name)
                for m in found[alias]
                if not (peers and self.unordered.get(m.get_tuple_name(OUT)) == group)
            )
        for alias, name in finals.items():
            self.final[name] = poly.union_map(m.set_tuple_name(IN, name) for m in found[alias])

    def _time(self, name: str, iterators: tuple[str, ...], vector: str) -> isl.Map:
        return self.poly.map(f"{{ {name}[{', '.join(iterators)}] -> [{vector}] }}")


def _analysed(
    sinks: isl.UnionMap, musts: isl.UnionMap, mays: isl.UnionMap, order: isl.UnionMap
) -> tuple[isl.UnionMap, isl.UnionMap]:
    """Pairs of a source and its sink, and the loads that may precede every ordinary write."""
    info = isl.UnionAccessInfo.from_sink(sinks).set_must_source(musts)
    if not mays.is_empty():
        info = info.set_may_source(mays)
    try:
        flow = info.set_schedule_map(order).compute_flow()
    except isl.Error as error:
        if DATAFLOW_FAULT not in str(error):
            raise
        return _subtracted(sinks, musts, mays, order)
    return flow.get_may_dependence(), flow.get_may_no_source()


def _subtracted(
    sinks: isl.UnionMap, musts: isl.UnionMap, mays: isl.UnionMap, order: isl.UnionMap
) -> tuple[isl.UnionMap, isl.UnionMap]:
    """The same by hand."""
    pairs = by_subtraction(musts.union(mays), sinks, musts, order)
    written = by_subtraction(musts, sinks, musts, order).range()
    return pairs, sinks.subtract_domain(written)


# -- is every flow of the original preserved? ------------------------------------------------


@dataclass(frozen=True)
class Correspondence:
    """How statements of a transformed SCoP relate to those of the original.

    ``origin[S]`` is the original statement whose instances ``S`` runs (with the same iterators,
    and perhaps others that these determine). Statements outside ``origin`` are copies, which move
    a value, perhaps times a scalar argument; or those of a reduction in two phases: ``starts`` put
    a neutral element into a partial result, ``combines`` add one to the element that it is for,
    and have the position of the load of it. ``extra[S]``
    counts the iterators that ``S`` has in front of those of its origin.
    """

    origin: dict[str, str]
    copies: frozenset[str]
    starts: frozenset[str] = frozenset()
    combines: Mapping[str, int] = field(default_factory=dict)
    extra: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def of(original: Scop, scop: Scop) -> Correspondence:
        known = original.by_name()
        origin: dict[str, str] = {}
        copies: set[str] = set()
        starts: set[str] = set()
        combines: dict[str, int] = {}
        extra: dict[str, int] = {}
        for s in scop.statements:
            name = s.origin or s.name
            if name in known:
                origin[s.name] = name
                extra[s.name] = len(s.iterators) - len(known[name].iterators)
            elif is_transfer(s.value):
                copies.add(s.name)
            elif isinstance(s.value, Const):
                starts.add(s.name)
            elif _combines(s):
                combines[s.name] = 1
            else:
                raise IllegalSchedule(
                    "flow check", s.name, "neither part of an original statement nor a copy"
                )
        return Correspondence(origin, frozenset(copies), frozenset(starts), combines, extra)

    def as_origin(self, m: isl.Map, side: isl.dim_type, part: str) -> isl.Map:
        """The map with instances of ``part`` on one side as those of the original statement."""
        if self.extra[part]:
            m = m.project_out(side, 0, self.extra[part])
        return m.set_tuple_name(side, self.origin[part])


def preserves_flow(
    original: Scop, transformed: State, max_operations: int = DEFAULT_MAX_OPERATIONS
) -> None:
    """Raise IllegalSchedule unless every value flow of ``original`` is kept by ``transformed``.

    Checked are, for every load of every instance, the instance (or the incoming element) whose
    value it gets; the last writer of every element that lives on; that the statements still are the
    same computations on the same instances. Copies are looked through. Under ``fp="reassociate"``
    the contributions of one reduction statement may come in any order. Raises BudgetExceeded when
    isl needs more than ``max_operations``.
    """
    try:
        _preserves(original, transformed, max_operations, subtracting=False)
    except IllegalSchedule as refusal:
        # isl's dataflow analysis names wrong sources for some tiled strided loops (seen in 0.27).
        try:
            _preserves(original, transformed, max_operations, subtracting=True)
        except BudgetExceeded:
            raise refusal from None


def _preserves(
    original: Scop, transformed: State, max_operations: int, subtracting: bool
) -> None:
    scop = transformed.scop
    before = Polyhedra(original, max_operations)
    after = Polyhedra(scop, max_operations, ctx=before.ctx)
    match = Correspondence.of(original, scop)
    with budget_errors():
        before.renew_budget()
        _same_computations(original, scop, match, before, after)
        groups = {
            name: f"{r.op} {r.array}"
            for name, r in reductions(before, transformed.fp).items()
            if all(_still_updates(scop.statement(s)) for s, o in match.origin.items() if o == name)
        }
        old = Flows(before, original.tree, unordered=groups, subtracting=subtracting)
        unordered = {s: groups[o] for s, o in match.origin.items() if o in groups}
        unordered |= {c: _group(scop, scop.statement(c), unordered) for c in match.combines}
        new = Flows(after, transformed.tree, unordered=unordered, subtracting=subtracting)
        partial = _Partial(new, match, unordered)
        resolve = _Resolver(new, match, partial)
        by_name = original.by_name()
        for (name, k), expected in old.sources.items():
            found = after.union_map(
                match.as_origin(m, IN, s)
                for s, o in match.origin.items()
                if o == name
                for m in pieces_of(resolve(partial.sources(s, k)))
            )
            outside = _outside(before, by_name[name], k)
            _compare(
                expected.subtract_domain(outside),
                found.subtract_domain(outside),
                f"{name} reading {by_name[name].reads[k]}",
            )
        for array in original.arrays:
            if array.live_out and not array.local:
                found = resolve(new.final[array.name])
                _compare(old.final[array.name], found, f"the final value of {array.name}")


class _Partial:
    """Reductions in two phases: which updates every combination of a partial result adds.

    Raises IllegalSchedule unless all start from a neutral element, belong to the reduction that
    they are combined into, and are added once.
    """

    def __init__(
        self, flows: Flows, match: Correspondence, unordered: Mapping[str, str]
    ) -> None:
        self.flows, self.match = flows, match
        self.updates: dict[str, isl.UnionMap] = {}  # combination -> updates
        self.homes: dict[str, list[tuple[str, isl.Map]]] = {}  # update -> its combination
        for name, position in match.combines.items():
            added = []
            for m in pieces_of(flows.sources[name, position]):
                source = m.get_tuple_name(OUT)
                if source in match.starts:
                    self._neutral(source, name)
                elif unordered.get(source) == unordered[name]:
                    added.append(m)
                    self.homes.setdefault(source, []).append((name, m.reverse()))
                else:
                    raise IllegalSchedule("flow check", f"{_named(source)} -> {name}",
                                          "not an update of what it is combined into")  # fmt: skip
            self.updates[name] = flows.poly.union_map(added)
        for source, homes in self.homes.items():
            found = flows.poly.union_map(m for _, m in homes)
            if not found.is_single_valued():
                raise IllegalSchedule("flow check", source, "an update would be added twice")

    def _neutral(self, start: str, combine: str) -> None:
        value = self.flows.scop.statement(start).value
        added = self.flows.scop.statement(combine).value
        assert isinstance(value, Const) and isinstance(added, Binary)
        if value.value != neutral_of(added.op, added.dtype) or value.dtype != added.dtype:
            raise IllegalSchedule("flow check", f"{start} -> {combine}", "no neutral element")

    def sources(self, name: str, k: int) -> isl.UnionMap:
        """What a load yields; the accumulator of a partial result, what that is combined into."""
        found = self.flows.sources[name, k]
        if name not in self.homes or not _accumulates(self.flows.scop.statement(name), k):
            return found
        starts = {m.get_tuple_name(OUT) for m in pieces_of(found)}
        if not starts <= self.match.starts:
            lost = min(starts - self.match.starts)
            raise IllegalSchedule("flow check", f"{_named(lost)} -> {name}",
                                  "a partial result starts from it")  # fmt: skip
        return self.flows.poly.union_map(
            part
            for combine, m in self.homes[name]
            for part in pieces_of(
                isl.UnionMap.from_map(m).apply_range(self.flows.sources[combine, 0])
            )
        )


class _Resolver:
    """Replaces parts by their origin, and copies by the source of what they copy.

    What a partial result adds comes from the updates of it.
    """

    def __init__(self, flows: Flows, match: Correspondence, partial: _Partial) -> None:
        self.match = match
        self.poly = flows.poly
        self.copied = {c: flows.sources[c, 0] for c in match.copies} | partial.updates

    def __call__(self, union: isl.UnionMap) -> isl.UnionMap:
        for _ in range(len(self.copied) + 1):
            if not any(m.get_tuple_name(OUT) in self.copied for m in pieces_of(union)):
                break
            union = self._through(union)
        return self.poly.union_map(
            self.match.as_origin(m, OUT, source) if source in self.match.origin else m
            for m in pieces_of(union)
            for source in [m.get_tuple_name(OUT)]
        )

    def _through(self, union: isl.UnionMap) -> isl.UnionMap:
        result = self.poly.union_map(())
        for m in pieces_of(union):
            piece = isl.UnionMap.from_map(m)
            copied = self.copied.get(m.get_tuple_name(OUT))
            result = result.union(piece if copied is None else piece.apply_range(copied))
        return result


def _combines(statement: Statement) -> bool:
    """Is it ``element = element op partial``?"""
    match statement.value:
        case Binary(op="add" | "mul" | "min" | "max", left=Load(access=a), right=Load(access=b)):
            same = statement.value.dtype == statement.value.right.dtype
            return same and a == statement.write and b.array != a.array
    return False


def _group(scop: Scop, combine: Statement, unordered: Mapping[str, str]) -> str:
    """The reduction that a combination belongs to: that of the updates of its partial results."""
    assert isinstance(combine.value, Binary)
    part = combine.reads[1].array
    for s in scop.statements:
        if s.write.array == part and unordered.get(s.name, "").startswith(f"{combine.value.op} "):
            return unordered[s.name]
    return f"{combine.value.op} {combine.write.array}"


def _still_updates(statement: Statement) -> bool:
    """Whether a part of a reduction reads the element it writes: a snapshot of it takes no part."""
    return any(_accumulates(statement, k) for k in range(len(statement.reads)))


def _same_computations(
    original: Scop, scop: Scop, match: Correspondence, before: Polyhedra, after: Polyhedra
) -> None:
    moved = {scop.statement(name).write.array: scop.statement(name).value for name in match.copies}
    for s in original.statements:
        parts = [p for p, o in match.origin.items() if o == s.name]
        covered = before.domains[s.name].subtract(before.domains[s.name])
        for part in parts:
            if _skeleton(scop.statement(part).value, moved) != _skeleton(s.value, {}):
                raise IllegalSchedule("flow check", s.name, f"{part} computes something else")
            domain = after.domains[part]
            if match.extra[part]:
                if not _determined(domain, match.extra[part]):
                    raise IllegalSchedule("flow check", s.name, "an instance would run twice")
                domain = domain.project_out(isl.dim_type.set, 0, match.extra[part])
            domain = domain.set_tuple_name(s.name)
            if not covered.is_disjoint(domain):
                raise IllegalSchedule("flow check", s.name, "an instance would run twice")
            covered = covered.union(domain)
        if not covered.is_equal(before.domains[s.name]):
            raise IllegalSchedule("flow check", s.name, "not the instances of the original")


def _determined(domain: isl.Set, count: int) -> bool:
    """Do the other dimensions determine the first ``count``?"""
    return bool(domain.identity().project_out(IN, 0, count).is_single_valued())


def _outside(poly: Polyhedra, statement: Statement, k: int) -> isl.UnionSet:
    """Instances whose load leaves the array: sizes for which that happens are never run."""
    access = poly.access_map(statement, statement.reads[k])
    return isl.UnionSet.from_set(
        access.subtract_range(element_box(poly, statement.reads[k].array)).domain()
    )


def element_box(poly: Polyhedra, name: str) -> isl.Set:
    """All elements of an array."""
    array = poly.scop.array(name)
    dims = [f"x{d}" for d in range(array.rank)]
    inside = " and ".join(f"0 <= {x} < {n}" for x, n in zip(dims, array.shape, strict=True))
    return poly.set(f"{{ {name}[{', '.join(dims)}] : {inside or 'true'} }}")


def is_transfer(value: Expr) -> bool:
    """One load, combined with nothing but constants and scalar arguments."""
    allowed = all(isinstance(e, Load | Scalar | Const | Binary | Unary) for e in walk(value))
    return allowed and len(loads(value)) == 1


def _skeleton(value: Expr, moved: Mapping[str, Expr]) -> Expr:
    """The computation without its accesses; what a copy computes is put in place of its result."""

    def change(e: Expr) -> Expr:
        if not isinstance(e, Load):
            return e
        source = moved.get(e.access.array)
        return Load(e.dtype, Access("_")) if source is None else _skeleton(source, moved)

    return transform(value, change)


def _compare(expected: isl.UnionMap, found: isl.UnionMap, what: str) -> None:
    expected, found = expected.coalesce(), found.coalesce()  # many parts cost far more to subtract
    if expected.is_equal(found):
        return
    lost = expected.subtract(found)
    if lost.is_empty():
        extra = found.subtract(expected)
        if extra.is_empty():
            return
        source = pieces_of(extra)[0].get_tuple_name(OUT)
        raise IllegalSchedule("flow check", f"{_named(source)} -> {what}", "a new flow")
    source = pieces_of(lost)[0].get_tuple_name(OUT)
    raise IllegalSchedule("flow check", f"{_named(source)} -> {what}", "this flow is lost")


def _named(source: str) -> str:
    return f"the initial {source.removeprefix(LIVE_IN)}" if source.startswith(LIVE_IN) else source


__all__ = ["LIVE_IN", "Correspondence", "Flows", "pieces_of", "preserves_flow"]
