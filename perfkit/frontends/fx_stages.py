"""Stages of a lowered graph: loop nests that each compute one array, and nests that they share.

A stage may run inside another stage's outer loops when it reads there only what the same iteration
of those loops has written: then intermediate arrays shrink to what one iteration needs (the code
generator finds that). :func:`fuse` puts each stage into the last group of stages where that holds;
one that reads nothing of the group joins it when it goes through the same rows of an array.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from perfkit.errors import Location
from perfkit.frontends.syntax import (
    Assign,
    Element,
    For,
    Name,
    Number,
    Operation,
    Stmt,
    Value,
)
from perfkit.ir import expr as ir
from perfkit.ir.affine import Affine
from perfkit.ir.expr import Access, Expr, loads, substitute

ENOUGH = 8
"""Iterations that a shared outer loop must have to be worth giving up loops inside it."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A loop from ``first`` to the least of ``lasts``, both included."""

    name: str
    first: Affine
    lasts: tuple[Affine, ...]

    @staticmethod
    def of(name: str, extent: Affine) -> Axis:
        return Axis(name, Affine.constant(0), (extent - 1,))

    def same_range(self, other: Axis) -> bool:
        return (self.first, self.lasts) == (other.first, other.lasts)

    def substitute(self, mapping: Mapping[str, Affine]) -> Axis:
        return Axis(
            self.name,
            self.first.substitute(mapping),
            tuple(e.substitute(mapping) for e in self.lasts),
        )


@dataclass(frozen=True, slots=True)
class Write:
    target: Access
    value: Expr

    def substitute(self, mapping: Mapping[str, Affine]) -> Write:
        return Write(self.target.substitute(mapping), substitute(self.value, mapping))


@dataclass(frozen=True, slots=True)
class Part:
    """A perfect nest: its loops, outermost first, and the assignments inside."""

    axes: tuple[Axis, ...]
    body: tuple[Write, ...]

    def substitute(self, mapping: Mapping[str, Affine]) -> Part:
        return Part(
            tuple(a.substitute(mapping) for a in self.axes),
            tuple(w.substitute(mapping) for w in self.body),
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """What computes one value: nests in order. ``shared`` names the axes, in all of the nests, that
    may be taken outside, best outermost first."""

    parts: tuple[Part, ...]
    shared: tuple[str, ...]
    text: str = ""

    def axis(self, name: str) -> Axis:
        return next(a for p in self.parts for a in p.axes if a.name == name)

    def writes(self) -> frozenset[str]:
        return frozenset(w.target.array for p in self.parts for w in p.body)

    def accesses(self) -> list[Access]:
        return [a for p in self.parts for w in p.body for a in (w.target, *loads(w.value))]


@dataclass
class Group:
    """Stages below common outer loops.

    ``placed`` tells, per array written in the group, which of its dimensions each outer loop is;
    ``walked`` the same of arrays that are only read. An array that is written but not placed is
    in ``scattered``.
    """

    axes: list[Axis]
    stages: list[Stage] = field(default_factory=list)
    placed: dict[str, list[int]] = field(default_factory=dict)
    walked: dict[str, list[int]] = field(default_factory=dict)
    scattered: set[str] = field(default_factory=set)

    @staticmethod
    def of(stage: Stage) -> Group:
        group = Group([stage.axis(n) for n in stage.shared])
        group.take(stage, [a.name for a in group.axes])
        return group

    def take(self, stage: Stage, names: Sequence[str]) -> None:
        """Add a stage whose axes ``names`` become the outer loops, which they match in number."""
        mapping = {
            old: Affine.variable(axis.name)
            for old, axis in zip(names, self.axes, strict=True)
        }
        gone = set(names)
        parts = []
        for part in stage.parts:
            inner = tuple(a for a in part.axes if a.name not in gone)
            parts.append(Part(inner, part.body).substitute(mapping))
        moved = replace(stage, parts=tuple(parts), shared=())
        self.stages.append(moved)
        written = moved.writes()
        for access in moved.accesses():
            dims = [_place(access, axis.name) for axis in self.axes]
            known = [d for d in dims if d is not None]
            whole = len(known) == len(dims)
            if access.array not in written:
                if whole:
                    self.walked[access.array] = known
            elif whole and self.placed.get(access.array, known) == known:
                self.placed[access.array] = known
            else:
                self.scattered.add(access.array)

    def cut(self, depth: int) -> None:
        """Keep only the first ``depth`` outer loops; the others return into the stages."""
        removed = self.axes[depth:]
        self.axes = self.axes[:depth]
        self.stages = [
            replace(s, parts=tuple(Part((*removed, *p.axes), p.body) for p in s.parts))
            for s in self.stages
        ]
        self.placed = {a: dims[:depth] for a, dims in self.placed.items()}
        self.walked = {a: dims[:depth] for a, dims in self.walked.items()}

    def match(self, stage: Stage) -> list[str]:
        """Axes of the stage for as many of the outer loops as possible, from the outermost on."""
        found: list[str] = []
        accesses = stage.accesses()
        if any(a.array in self.scattered for a in accesses):
            return []
        places = self.placed
        reads = [a for a in accesses if a.array in places]
        if not reads:
            # Nothing depends on the group; it may still share its data.
            places = self.walked
            reads = [a for a in accesses if a.array in places]
        if not reads:
            return []
        for k, axis in enumerate(self.axes):
            indices = {a.indices[places[a.array][k]] for a in reads}
            if len(indices) != 1:
                break
            (index,) = indices
            names = index.names()
            if len(names) != 1 or index != Affine.variable(next(iter(names))):
                break
            (name,) = names
            if name not in stage.shared or name in found:
                break
            if not stage.axis(name).same_range(axis):
                break
            found.append(name)
        return found

    def worth(self, depth: int) -> bool:
        """Whether so few outer loops are still a good home."""
        if depth == len(self.axes):
            return depth > 0
        trips = 1
        for axis in self.axes[:depth]:
            extent = axis.lasts[0] - axis.first + 1
            trips *= extent.const if extent.is_constant else ENOUGH
        return trips >= ENOUGH


def _place(target: Access, name: str) -> int | None:
    for d, index in enumerate(target.indices):
        if index == Affine.variable(name):
            return d
    return None


def fuse(stages: Iterable[Stage]) -> list[Group]:
    """Groups in order; their stages in the order given."""
    groups: list[Group] = []
    for stage in stages:
        group = groups[-1] if groups else None
        if group is not None:
            names = group.match(stage)
            if names and group.worth(len(names)):
                if len(names) < len(group.axes):
                    group.cut(len(names))
                group.take(stage, names)
                continue
        groups.append(Group.of(stage))
    return groups


# -- syntax -----------------------------------------------------------------------------------


def emit(groups: Sequence[Group], location: Location) -> tuple[Stmt, ...]:
    """The loops of the groups, one nest after the other."""
    result: list[Stmt] = []
    for group in groups:
        body: list[Stmt] = []
        for stage in group.stages:
            for part in stage.parts:
                writes = tuple(
                    Assign(_element(w.target, w.value.dtype), value(w.value), location, stage.text)
                    for w in part.body
                )
                body += nest(part.axes, writes, location)
        result += nest(group.axes, tuple(body), location)
    return tuple(result)


def nest(axes: Sequence[Axis], body: tuple[Stmt, ...], location: Location) -> tuple[Stmt, ...]:
    for axis in reversed(axes):
        last = index_value(axis.lasts[0])
        for other in axis.lasts[1:]:
            last = Operation("int64", "min", (last, index_value(other)))
        body = (For(axis.name, index_value(axis.first), last, 1, body, location),)
    return body


def index_value(index: Affine) -> Value:
    """Index arithmetic as a value of the loop language."""
    result: Value | None = None
    terms: list[tuple[Value, int]] = [(Name("int64", n), c) for n, c in index.terms]
    for div, c in index.divs:
        inner = (index_value(div.inner), Number("int64", div.divisor))
        terms.append((Operation("int64", "floordiv", inner), c))
    for term, c in terms:
        scaled = term if c == 1 else Operation("int64", "mul", (Number("int64", c), term))
        result = scaled if result is None else Operation("int64", "add", (result, scaled))
    constant = Number("int64", index.const)
    if result is None:
        return constant
    return Operation("int64", "add", (result, constant)) if index.const else result


def _element(access: Access, dtype: str) -> Element:
    return Element(dtype, access.array, tuple(map(index_value, access.indices)))


def value(expr: Expr) -> Value:
    """A typed expression as a value of the loop language."""
    match expr:
        case ir.Const(dtype=dtype, value=number):
            return Number(dtype, number)
        case ir.AffineValue(dtype=dtype, affine=index):
            found = index_value(index)
            return found if dtype == "int64" else Operation(dtype, "cast", (found,))
        case ir.Load(dtype=dtype, access=access):
            return _element(access, dtype)
        case ir.Cast(dtype=dtype, arg=arg):
            return Operation(dtype, "cast", (value(arg),))
        case ir.Unary(dtype=dtype, op=op, arg=arg):
            return Operation(dtype, op, (value(arg),))
        case ir.Binary(dtype=dtype, op=op, left=left, right=right):
            return Operation(dtype, op, (value(left), value(right)))
        case ir.Compare(dtype=dtype, op=compare, left=left, right=right):
            return Operation(dtype, compare, (value(left), value(right)))
        case ir.Select(dtype=dtype, condition=condition, if_true=a, if_false=b):
            return Operation(dtype, "select", (value(condition), value(a), value(b)))
        case ir.Call(dtype=dtype, function=function, args=args):
            return Operation(dtype, "call", tuple(map(value, args)), function)
    raise TypeError(type(expr).__name__)


__all__ = ["Axis", "Group", "Part", "Stage", "Write", "emit", "fuse", "index_value", "value"]
