"""Orders found by isl's scheduler: Pluto's algorithm, as plain loop trees.

The scheduler (Bondhugula et al., "A practical automatic polyhedral parallelizer and locality
optimizer", 2008, as generalised in isl) picks, band by band, loops that carry every dependence
forward and keep the distance between producer and consumer small. The loops of one band may be
interchanged and tiled. What comes back is a :class:`Found`: a tree for an ``Order`` step and the
facts about its bands, which no later step has to trust, because each proves its own legality.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import islpy as isl

from perfkit.analysis.dependences import Dependences
from perfkit.errors import InternalError, TransformError
from perfkit.ir.affine import Affine
from perfkit.ir.isl import Polyhedra, affine_of, budget_errors
from perfkit.ir.tree import Leaf, Loop, Node, Sequence, statements

Kind = isl.schedule_node_type


@dataclass(frozen=True)
class Options:
    """What the scheduler prefers.

    ``fusion``: "min" runs every strongly connected component on its own, "smart" fuses while that
    costs neither a band's depth nor its parallelism, "max" fuses all it can. ``outer_parallel``
    asks for a parallel outermost loop first.
    """

    fusion: str = "smart"
    outer_parallel: bool = False


DEFAULT = Options()


@dataclass(frozen=True)
class Band:
    """Loops, outermost first, that may be interchanged and, when ``permutable``, tiled."""

    loops: tuple[str, ...]
    permutable: bool
    coincident: tuple[bool, ...]


@dataclass(frozen=True)
class Found:
    """A tree and its bands, outer ones first."""

    tree: Node
    bands: tuple[Band, ...]


@dataclass(frozen=True)
class Constraints:
    """What the scheduler has to respect (``order``), and wants to keep close (``flow``)."""

    order: isl.UnionMap
    flow: isl.UnionMap
    parallel: isl.UnionMap


def constraints(deps: Dependences) -> Constraints:
    """What the dependences ask of a schedule.

    Reductions that may be reordered do not order anything, but a loop that carries one is not
    parallel.
    """
    poly = deps.polyhedra
    return Constraints(
        order=poly.union_map(d.relation for d in deps if not d.reduction).coalesce(),
        flow=poly.union_map(d.relation for d in deps.flows()).coalesce(),
        parallel=poly.union_map(d.relation for d in deps).coalesce(),
    )


def schedule(
    deps: Dependences, options: Options = DEFAULT, given: Constraints | None = None
) -> Found:
    """Run isl's scheduler. Raises BudgetExceeded when it takes too long."""
    poly = deps.polyhedra
    poly.renew_budget()
    with budget_errors(), _settings(poly.ctx, options):
        given = constraints(deps) if given is None else given
        wanted = (
            isl.ScheduleConstraints.on_domain(poly.union_set(poly.domains.values()))
            .set_context(poly.context)
            .set_validity(given.order)
            .set_coincidence(given.parallel)
            .set_proximity(given.flow)
        )
        try:
            root = wanted.compute_schedule().get_root()
        except isl.Error as error:
            if "unable to carry" not in str(error):
                raise
            raise TransformError("isl's scheduler found no order for these dependences") from None
        return _Reader(poly).read(root)


def is_connected(deps: Dependences) -> bool:
    """Do all statements depend on each other, so that there is nothing to fuse or keep apart?"""
    names = [s.name for s in deps.scop.statements]
    edges = {(d.source, d.target) for d in deps}
    for forward in (True, False):
        seen, frontier = {names[0]}, [names[0]]
        while frontier:
            here = frontier.pop()
            for a, b in edges:
                source, target = (a, b) if forward else (b, a)
                if source == here and target not in seen:
                    seen.add(target)
                    frontier.append(target)
        if len(seen) < len(names):
            return False
    return True


@contextmanager
def _settings(ctx: isl.Context, options: Options) -> Iterator[None]:
    """Set the scheduler's options on this compilation's context, and put them back."""
    if options.fusion not in ("min", "smart", "max"):
        raise InternalError(f"no fusion heuristic is named {options.fusion!r}")
    wanted = {
        "serialize_sccs": options.fusion == "min",
        "whole_component": options.fusion == "max",
        "maximize_band_depth": True,
        "maximize_coincidence": options.fusion != "max",
        "outer_coincidence": options.outer_parallel,
        "treat_coalescing": True,
    }
    before = {name: getattr(ctx, f"get_schedule_{name}")() for name in wanted}
    for name, value in wanted.items():
        getattr(ctx, f"set_schedule_{name}")(int(value))
    try:
        yield
    finally:
        for name, value in before.items():
            getattr(ctx, f"set_schedule_{name}")(value)


class _Reader:
    """Turns an isl schedule tree into our nodes."""

    def __init__(self, poly: Polyhedra) -> None:
        self.iterators: Mapping[str, tuple[str, ...]] = {
            s.name: s.iterators for s in poly.scop.statements
        }
        self.position = {s.name: k for k, s in enumerate(poly.scop.statements)}
        self.bands: list[Band] = []
        self.taken = set(poly.scop.parameters)

    def read(self, root: isl.ScheduleNode) -> Found:
        every = tuple(self.position)
        tree = self._node(root, every, ())
        return Found(tree, tuple(self.bands))

    def _node(
        self, node: isl.ScheduleNode, active: tuple[str, ...], around: tuple[str, ...]
    ) -> Node:
        kind = node.get_type()
        if kind == Kind.leaf:
            leaves = tuple(Leaf(s) for s in sorted(active, key=self.position.__getitem__))
            return leaves[0] if len(leaves) == 1 else Sequence(leaves)
        if kind in (Kind.sequence, Kind.set):
            children = []
            for k in range(node.n_children()):
                branch = node.child(k)
                names = _names(branch.filter_get_filter())
                kept = tuple(s for s in active if s in names)
                if kept:
                    children.append(self._node(branch.child(0), kept, around))
            return children[0] if len(children) == 1 else _flat(children)
        if kind == Kind.band:
            return self._band(node, active, around)
        if kind == Kind.filter:
            names = _names(node.filter_get_filter())
            active = tuple(s for s in active if s in names)
        elif kind not in (Kind.domain, Kind.context, Kind.mark, Kind.guard):
            raise InternalError(f"isl's scheduler made a node of kind {kind}")
        return self._node(node.child(0), active, around)

    def _band(
        self, node: isl.ScheduleNode, active: tuple[str, ...], around: tuple[str, ...]
    ) -> Node:
        partial = node.band_get_partial_schedule()
        members: list[tuple[str, dict[str, Affine], bool]] = []
        for k in range(node.band_n_member()):
            row = self._row(partial.get_union_pw_aff(k), active)
            if len(set(row.values())) == 1 and next(iter(row.values())).is_constant:
                continue  # everything runs at one point: no loop
            name = self._name(row, around)
            around = (*around, name)
            members.append((name, row, node.band_member_get_coincident(k)))
        if members:
            names = tuple(m[0] for m in members)
            flags = tuple(m[2] for m in members)
            self.bands.append(Band(names, node.band_get_permutable(), flags))
        body = self._node(node.child(0), active, around)
        order = statements(body)
        for name, row, _ in reversed(members):
            body = Loop(name, tuple((s, row[s]) for s in order), body)
        return body

    def _row(self, row: isl.UnionPwAff, active: tuple[str, ...]) -> dict[str, Affine]:
        # isl swallows what a callback raises, so the callbacks only collect.
        parts: list[isl.PwAff] = []
        row.foreach_pw_aff(parts.append)
        found: dict[str, Affine] = {}
        for part in parts:
            name = part.domain().get_tuple_name()
            for aff in affine_pieces(part) if name in active else ():
                expr = affine_of(aff, self.iterators[name])
                if found.setdefault(name, expr) != expr:
                    raise InternalError(f"isl's scheduler made a piecewise schedule of {name}")
        return found

    def _name(self, row: Mapping[str, Affine], around: tuple[str, ...]) -> str:
        """The iterator that most statements walk here, and that no loop around is named after."""
        votes: Counter[str] = Counter()
        for statement, expr in row.items():
            for iterator in self.iterators[statement]:
                if expr.coefficient(iterator):
                    votes[iterator] += 1 if iterator in around else len(row) + 1
        base = max(votes, key=lambda n: (votes[n], n), default="c")
        name, k = base, 2
        while name in self.taken:
            name, k = f"{base}_{k}", k + 1
        self.taken.add(name)
        return name


def affine_pieces(pw: isl.PwAff) -> list[isl.Aff]:
    """The expressions of a piecewise one, without their domains."""
    found: list[isl.Aff] = []
    pw.foreach_piece(lambda _, aff: found.append(aff))
    return found


def _names(instances: isl.UnionSet) -> frozenset[str]:
    found: list[str] = []
    instances.foreach_set(lambda s: found.append(s.get_tuple_name()))
    return frozenset(found)


def _flat(children: list[Node]) -> Sequence:
    """One sequence for sequences that stand directly in one another."""
    flat: list[Node] = []
    for child in children:
        flat.extend(child.children if isinstance(child, Sequence) else [child])
    return Sequence(tuple(flat))


__all__ = ["Band", "Constraints", "Found", "Options", "constraints", "is_connected", "schedule"]
