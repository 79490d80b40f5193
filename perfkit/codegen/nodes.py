"""The loop AST between isl's AST and C text.

It is small on purpose: loops with inclusive affine bounds, guards, and statement instances whose
iterators are affine in the loop variables around them. Passes rewrite it: jamming and
vectorisation (:mod:`perfkit.codegen.vector`), register promotion (:mod:`perfkit.codegen.promote`),
parallel regions (:mod:`perfkit.codegen.parallel`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from perfkit.errors import InternalError
from perfkit.ir.affine import Affine, Constraint, FloorDiv, Piece
from perfkit.ir.expr import Access
from perfkit.ir.tree import Mark


@dataclass(frozen=True, slots=True)
class Extreme:
    """The largest ("max") or smallest ("min") of several bounds."""

    kind: Literal["max", "min"]
    args: tuple[Bound, ...]


Bound = Affine | Extreme


@dataclass(frozen=True, slots=True)
class Lanes:
    """``count`` instances at once: loop variable ``name``, ``name + step``, ...

    ``part`` numbers the vectors of a strip: each keeps its own partial result in a reduction.
    """

    name: str
    count: int
    step: int = 1
    part: int = 0


@dataclass(frozen=True, slots=True)
class Register:
    """A C local that stands for an array element, or for ``lanes.count`` neighbours.

    ``combine`` is set for the partial results of a reduction: starts at the neutral element and is
    combined into memory, lane by lane, at the end; ``part`` tells several of them apart.
    """

    name: str
    access: Access
    dtype: str
    lanes: Lanes | None = None
    load: bool = True
    store: bool = True
    combine: str = ""
    part: int | None = None


@dataclass(frozen=True, slots=True)
class For:
    """``for (name = lower; name <= upper; name += step) body``.

    ``width`` > 1 marks the main part of a strip-mined loop: it runs while ``width`` iterations fit
    below ``upper``, and takes them all at once. A ``descending`` one has step 1 and runs backwards.
    ``resumes`` says that the variable belongs to the :class:`Let` around the loop, so it carries on
    from wherever it stands. With ``until`` = (element, bytes) it ends early, where the element's
    address is a multiple of so many bytes.
    """

    name: str
    lower: Bound
    upper: Bound
    body: tuple[Node, ...]
    step: int = 1
    width: int = 1
    resumes: bool = False
    marks: tuple[Mark, ...] = ()
    comment: str = ""
    schedule: str = ""  # OpenMP worksharing clause, set by the parallel pass
    combined: tuple[Register, ...] = ()  # elements that the threads reduce together
    ivdep: bool = False
    in_order: bool = False  # sums that gcc may get wrong: perfkit.codegen.inorder
    until: tuple[Access, int] | None = None
    descending: bool = False

    def mark(self, kind: str) -> Mark | None:
        return next((m for m in self.marks if m.kind == kind), None)


@dataclass(frozen=True, slots=True)
class Guard:
    """``if (condition) body``; the condition is a union of conjunctions."""

    condition: tuple[Piece, ...]
    body: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Pieces:
    """The parts, in order, that isl split one loop of the tree into.

    ``limits`` are the expressions that decide where a part ends and the next begins.
    """

    limits: tuple[Affine, ...]
    body: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Instance:
    """One execution of a statement, or ``lanes.count`` of them at once."""

    statement: str
    values: tuple[tuple[str, Affine], ...]  # iterator -> expression over loop variables
    lanes: Lanes | None = None
    floors: tuple[tuple[FloorDiv, Affine], ...] = ()  # what tile loops say of the iterators

    @property
    def mapping(self) -> dict[str, Affine]:
        return dict(self.values)

    def resolve(self, expr: Affine) -> Affine:
        """An expression over the iterators in terms of loop variables."""
        if expr.divs and self.floors:
            known = dict(self.floors)
            rest = Affine.build(dict(expr.terms), expr.const, {
                d: c for d, c in expr.divs if d not in known
            })  # fmt: skip
            result = rest.substitute(self.mapping)
            for div, c in expr.divs:
                if div in known:
                    result = result + known[div] * c
            return result
        return expr.substitute(self.mapping)

    def resolve_access(self, access: Access) -> Access:
        return Access(access.array, tuple(map(self.resolve, access.indices)))


@dataclass(frozen=True, slots=True)
class Ahead:
    """Elements that are about to be written: ``first + n * (second - first)`` in memory.

    ``n`` goes from ``start`` to below ``stop``; the elements need not exist.
    """

    first: Access
    second: Access
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Scope:
    """Registers that live around ``body``: loaded before it, stored after it.

    What stands in ``ahead`` is prefetched before the body.
    """

    registers: tuple[Register, ...]
    body: tuple[Node, ...]
    ahead: tuple[Ahead, ...] = ()


@dataclass(frozen=True, slots=True)
class Buffer:
    """A small array that lives in ``body``: what a contracted or packed array becomes."""

    name: str
    dtype: str
    extents: tuple[int, ...]
    body: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Let:
    """Declares the loop variable ``name`` at ``lower`` for the loops in ``body``.

    With ``after`` = (upper, n), it starts behind the last full strip of n that fits below upper:
    where a parallel main loop, which needs its own variable, has stopped.
    """

    name: str
    lower: Bound
    body: tuple[Node, ...]
    after: tuple[Bound, int] | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """An OpenMP construct around ``body``: "parallel" or "single"."""

    kind: Literal["parallel", "single"]
    body: tuple[Node, ...]


Node = For | Guard | Pieces | Instance | Scope | Buffer | Let | Region


def map_bound(bound: Bound, change: Callable[[Affine], Affine]) -> Bound:
    if isinstance(bound, Affine):
        return change(bound)
    return Extreme(bound.kind, tuple(map_bound(a, change) for a in bound.args))


def bound_names(bound: Bound) -> frozenset[str]:
    if isinstance(bound, Affine):
        return bound.names()
    return frozenset(n for a in bound.args for n in bound_names(a))


def leaves(bound: Bound) -> tuple[Affine, ...]:
    if isinstance(bound, Affine):
        return (bound,)
    return tuple(leaf for a in bound.args for leaf in leaves(a))


def extreme(kind: Literal["max", "min"], args: tuple[Bound, ...]) -> Bound:
    """Flattened, without repeats; constants and constant differences are folded."""
    flat: list[Bound] = []
    for a in args:
        for b in a.args if isinstance(a, Extreme) and a.kind == kind else (a,):
            if b not in flat:
                flat.append(b)
    kept: list[Bound] = []
    for b in flat:
        dominated = False
        for other in list(kept):
            if isinstance(b, Affine) and isinstance(other, Affine):
                difference = b - other
                if difference.is_constant:
                    worse = difference.const <= 0 if kind == "max" else difference.const >= 0
                    if worse:
                        dominated = True
                    else:
                        kept.remove(other)
        if not dominated:
            kept.append(b)
    return kept[0] if len(kept) == 1 else Extreme(kind, tuple(kept))


def constraints_below(value: Affine, bound: Bound) -> tuple[Piece, ...]:
    """``value <= bound`` as a union of conjunctions."""
    if isinstance(bound, Affine):
        return ((Constraint(bound - value),),)
    parts = [constraints_below(value, a) for a in bound.args]
    if bound.kind == "max":
        return tuple(p for part in parts for p in part)
    return conjunction(parts)


def constraints_above(value: Affine, bound: Bound) -> tuple[Piece, ...]:
    """``value >= bound`` as a union of conjunctions."""
    if isinstance(bound, Affine):
        return ((Constraint(value - bound),),)
    parts = [constraints_above(value, a) for a in bound.args]
    if bound.kind == "min":
        return tuple(p for part in parts for p in part)
    return conjunction(parts)


def conjunction(parts: list[tuple[Piece, ...]]) -> tuple[Piece, ...]:
    result: tuple[Piece, ...] = ((),)
    for part in parts:
        result = tuple(a + b for a in result for b in part)
    return result


def substitute(node: Node, mapping: Mapping[str, Affine]) -> Node:
    """Replace loop variables everywhere below (bounds, guards, instances)."""

    def affine(a: Affine) -> Affine:
        return a.substitute(mapping)

    match node:
        case For():
            return replace(
                node,
                lower=map_bound(node.lower, affine),
                upper=map_bound(node.upper, affine),
                combined=tuple(
                    replace(r, access=r.access.substitute(mapping)) for r in node.combined
                ),
                until=node.until and (node.until[0].substitute(mapping), node.until[1]),
                body=tuple(substitute(n, mapping) for n in node.body),
            )
        case Guard():
            return Guard(
                tuple(tuple(c.substitute(mapping) for c in p) for p in node.condition),
                tuple(substitute(n, mapping) for n in node.body),
            )
        case Pieces():
            return Pieces(
                tuple(map(affine, node.limits)), tuple(substitute(n, mapping) for n in node.body)
            )
        case Instance():
            return replace(
                node,
                values=tuple((i, affine(a)) for i, a in node.values),
                floors=tuple((d, affine(a)) for d, a in node.floors),
            )
        case Let():
            raise InternalError("substitution into a strip-mined loop")
        case _:
            return replace(node, body=tuple(substitute(n, mapping) for n in node.body))


def rename_loop(node: For, new: str) -> For:
    """The same loop over another variable name."""
    mapping = {node.name: Affine.variable(new)}
    return replace(node, name=new, body=tuple(substitute(n, mapping) for n in node.body))


def walk(node: Node) -> Iterator[Node]:
    yield node
    if not isinstance(node, Instance):
        for child in node.body:
            yield from walk(child)


def instances(nodes: tuple[Node, ...]) -> tuple[Instance, ...]:
    return tuple(n for top in nodes for n in walk(top) if isinstance(n, Instance))
