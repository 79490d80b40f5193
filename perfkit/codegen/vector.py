"""Jamming, vectorisation and unrolling of the loop AST.

A loop marked ``jam(n)`` or ``vector(n)`` is strip-mined by n and the n iterations of a strip are
carried down to the innermost statements, where they become n copies, or SIMD lanes::

    for i jam(2)                      for (i = 0; i + 1 <= n; i += 2)
      for j vector(4)                   for (j = 0; j + 3 <= m; j += 4)
        for k                 ->          for (k = 0; k <= p; k++) {
          S(i, j, k)                        S(i,   j..j+3, k)
                                            S(i+1, j..j+3, k)
                                          }

An inner loop whose bounds differ between the copies (a triangle) runs jammed over the range that
all copies share; what sticks out on either side runs copy by copy, in the same order. Strips are
counted from a loop's own lower bound, or from the first aligned element that it writes, so no mask
is needed; the iterations left over run plainly.
Legality of the marks is proved on the schedule (:mod:`perfkit.schedule.legality`), not here: the
copies of an instance run together, in the order of the loops inside. Where isl has split such a
loop at places that differ between the copies, jamming part by part would be a third order, so the
copies run one after the other, unless their iterations are independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from math import inf

from perfkit.codegen.names import Names
from perfkit.codegen.nodes import (
    Bound,
    Extreme,
    For,
    Guard,
    Instance,
    Lanes,
    Let,
    Node,
    Pieces,
    bound_names,
    conjunction,
    constraints_above,
    constraints_below,
    extreme,
    instances,
    leaves,
    map_bound,
    substitute,
)
from perfkit.codegen.target import Target
from perfkit.ir.affine import Affine
from perfkit.ir.expr import (
    ITEMSIZE,
    Access,
    Binary,
    Cast,
    Const,
    Expr,
    Load,
    Scalar,
    Unary,
)
from perfkit.ir.expr import walk as walk_expr
from perfkit.ir.scop import Statement

_LANE_OPS = ("add", "sub", "mul", "div", "min", "max")

SHORT = 8
"""Vectors in a loop below which its stores are not aligned."""


@dataclass(frozen=True, slots=True)
class Jam:
    """``count`` iterations of loop ``name`` taken together, ``lanes`` of them per SIMD value."""

    name: str
    count: int
    step: int
    lanes: int = 1

    def offsets(self) -> range:
        return range(0, self.count * self.step, self.lanes * self.step)

    @property
    def last(self) -> int:
        return (self.count - 1) * self.step


@dataclass(frozen=True, slots=True)
class Expander:
    """Rewrites marked loops.

    ``reductions`` maps a statement to its reduction operator; ``independent`` says whether the
    iterations of a loop may run in any order; ``aligned`` are arrays laid out for vectors already.
    """

    statements: Mapping[str, Statement]
    target: Target
    reductions: Mapping[str, str]
    independent: Callable[[str], bool] = lambda loop: False
    names: Names = field(default_factory=Names)
    aligned: frozenset[str] = frozenset()

    def expand(self, nodes: tuple[Node, ...], jams: tuple[Jam, ...] = ()) -> tuple[Node, ...]:
        result: list[Node] = []
        run: list[Instance] = []
        for node in nodes:
            if isinstance(node, Instance):
                run.append(node)
                continue
            result += self._copies(run, jams)
            run = []
            match node:
                case For():
                    result += self._loop(node, jams)
                case Guard():
                    result += self._guard(node, jams)
                case Pieces():
                    result += self._pieces(node, jams)
                case _:
                    result.append(replace(node, body=self.expand(node.body, jams)))
        result += self._copies(run, jams)
        return tuple(result)

    # -- loops ---------------------------------------------------------------------------------

    def _loop(self, loop: For, jams: tuple[Jam, ...]) -> tuple[Node, ...]:
        names = {j.name for j in jams}
        if any(names & i.names() for r in loop.combined for i in r.access.indices):
            # Every copy reduces an element of its own.
            return self._one_by_one((loop,), jams)
        if names & (bound_names(loop.lower) | bound_names(loop.upper)):
            return self._ragged(loop, jams)
        return self._strips(loop, jams)

    def _strips(self, loop: For, jams: tuple[Jam, ...]) -> tuple[Node, ...]:
        """Main loop over whole strips, then the left-over iterations."""
        jam, unroll, vector = loop.mark("jam"), loop.mark("unroll"), loop.mark("vector")
        plain = replace(loop, marks=tuple(m for m in loop.marks if m.kind == "parallel"))
        if vector and not any(j.lanes > 1 for j in jams) and not self._collides(loop):
            lanes = self._lanes(loop, vector.factor)
            if lanes > 1:
                strip = Jam(loop.name, vector.factor // lanes * lanes, loop.step, lanes)
                body = self.expand(loop.body, (*jams, strip))
                until = self._alignment(loop, lanes)
                return self._split(plain, strip.count, body, jams, until)
            innermost = all(isinstance(n, Instance | Guard) for n in loop.body)
            if innermost and not jams:
                return (replace(plain, ivdep=True, body=self.expand(loop.body, jams)),)
        if jam is not None and jam.factor > 1:
            strip = Jam(loop.name, jam.factor, loop.step)
            return self._split(plain, jam.factor, self.expand(loop.body, (*jams, strip)), jams)
        if unroll is not None and unroll.factor > 1:
            copies = tuple(
                copy
                for c in range(unroll.factor)
                for copy in self.expand(_shifted(loop.body, {loop.name: c * loop.step}), jams)
            )
            return self._split(plain, unroll.factor, copies, jams)
        return (replace(plain, body=self.expand(loop.body, jams)),)

    def _split(
        self,
        loop: For,
        width: int,
        body: tuple[Node, ...],
        jams: tuple[Jam, ...],
        until: tuple[Access, int] | None = None,
    ) -> tuple[Node, ...]:
        """Single iterations up to the alignment ``until``, whole strips, and the rest."""
        rest = self.expand(loop.body, jams)
        if loop.mark("parallel") is not None:
            # A worksharing loop needs a variable of its own, so the rest finds its start itself.
            main: Node = replace(loop, width=width, body=body)
            tail = replace(loop, resumes=True, marks=(), body=rest)
            return (main, Let(loop.name, loop.lower, (tail,), (loop.upper, width * loop.step)))
        main = replace(loop, width=width, resumes=True, body=body)
        if _trip_count(loop) is not None and _trip_count(loop) % width == 0:  # type: ignore[operator]
            return (Let(loop.name, loop.lower, (main,)),)
        tail = replace(loop, resumes=True, body=rest)
        head = () if until is None else (replace(tail, until=until),)
        return (Let(loop.name, loop.lower, (*head, main, tail)),)

    def _alignment(self, loop: For, lanes: int) -> tuple[Access, int] | None:
        """The first element that an innermost loop writes, where its vectors are to start.

        A vector that crosses cache lines costs two accesses. Short loops are not worth the peeling.
        """
        if loop.mark("parallel") is not None or _longest(loop) < SHORT * lanes:
            return None
        if not all(isinstance(n, Instance) for n in loop.body):
            return None
        for instance in instances(loop.body):
            element = instance.resolve_access(self.statements[instance.statement].write)
            if not element.indices or element.array in self.aligned:
                continue
            *outer, last = element.indices
            if any(loop.name in i.names() for i in outer) or last.divs:
                continue
            if last.coefficient(loop.name) * loop.step == 1:
                dtype = self.statements[instance.statement].value.dtype
                return element, lanes * ITEMSIZE[dtype]
        return None

    def _ragged(self, loop: For, jams: tuple[Jam, ...]) -> tuple[Node, ...]:
        """A loop whose bounds differ between the copies: the shared range, and both edges."""
        if loop.step != 1 or _floored(loop.lower, jams) or _floored(loop.upper, jams):
            return self._one_by_one((loop,), jams)
        first, shared_first = (_corner(loop.lower, jams, big) for big in (False, True))
        shared_last, last = (_corner(loop.upper, jams, big) for big in (False, True))
        inside = constraints_above(Affine.variable(loop.name), loop.lower)
        inside = conjunction([inside, constraints_below(Affine.variable(loop.name), loop.upper)])
        edge = self._one_by_one((Guard(inside, loop.body),), jams)
        result: list[Node] = []
        if first != shared_first:
            stop = extreme("min", (_add(shared_first, -1), last))
            result.append(For(loop.name, first, stop, edge))
        result += self._strips(replace(loop, lower=shared_first, upper=shared_last), jams)
        if last != shared_last:
            start = extreme("max", (_add(shared_last, 1), shared_first))
            result.append(For(loop.name, start, last, edge))
        return tuple(result)

    def _guard(self, guard: Guard, jams: tuple[Jam, ...]) -> tuple[Node, ...]:
        names = {j.name for j in jams}
        used = {n for p in guard.condition for c in p for n in c.expr.names()}
        if not names & used:
            return (Guard(guard.condition, self.expand(guard.body, jams)),)
        return self._one_by_one((guard,), jams)

    def _pieces(self, pieces: Pieces, jams: tuple[Jam, ...]) -> tuple[Node, ...]:
        names = {n for limit in pieces.limits for n in limit.names()}
        # Loops in lanes are independent, or they would not be in lanes.
        uneven = [j.name for j in jams if j.lanes == 1 and j.name in names]
        if all(map(self.independent, uneven)):
            return self.expand(pieces.body, jams)
        return self._one_by_one(pieces.body, jams)

    def _one_by_one(self, nodes: tuple[Node, ...], jams: tuple[Jam, ...]) -> tuple[Node, ...]:
        """The copies in order, as loops over the strips: for what cannot be jammed."""
        one = {j.name: self.names.derived(j.name, "p") for j in jams}
        mapping = {name: Affine.variable(point) for name, point in one.items()}
        body = self.expand(tuple(substitute(n, mapping) for n in nodes))
        for jam in reversed(jams):
            start = Affine.variable(jam.name)
            body = (For(one[jam.name], start, start + jam.last, body, jam.step),)
        return body

    # -- statements ----------------------------------------------------------------------------

    def _copies(self, run: list[Instance], jams: tuple[Jam, ...]) -> list[Node]:
        """All copies of a straight-line run, copy after copy."""
        if not run:
            return []
        lane = next((j for j in jams if j.lanes > 1), None)
        lanes = Lanes(lane.name, lane.lanes, lane.step) if lane else None
        result: list[Node] = []
        for offsets in product(*(j.offsets() for j in jams)):
            shift = {j.name: o for j, o in zip(jams, offsets, strict=True)}
            if lane is not None and lanes is not None:
                lanes = replace(lanes, part=shift[lane.name] // (lane.lanes * lane.step))
            for node in _shifted(tuple(run), shift):
                assert isinstance(node, Instance)
                result.append(replace(node, lanes=lanes))
        return result

    def _lanes(self, loop: For, factor: int) -> int:
        """SIMD lanes that every statement below can use; 1 when explicit SIMD does not apply."""
        found = instances(loop.body)
        innermost = all(isinstance(n, Instance) for n in loop.body)
        lanes = factor
        dtypes: set[str] = set()
        for instance in found:
            statement = self.statements[instance.statement]
            types = {e.dtype for e in walk_expr(statement.value)} | {statement.value.dtype}
            dtypes |= types
            if not explicit(statement.value):
                return 1
            index = {i for e in statement.write.indices for i in e.names()}
            written = {n for it, value in instance.values if it in index for n in value.names()}
            if loop.name not in written and not (
                innermost and instance.statement in self.reductions
            ):
                return 1
        if len(dtypes) != 1:
            return 1
        lanes = min(lanes, self.target.simd_bytes // ITEMSIZE[dtypes.pop()])
        return lanes if lanes > 1 and lanes & (lanes - 1) == 0 else 1

    def _collides(self, loop: For) -> bool:
        """Whether iterations may add to one element although it moves with the loop: ``A[i / 2]``.

        Lanes cannot: each would add to the old value. Of other statements than reductions no two
        iterations write one element, or the dependences would have forbidden the mark.
        """
        for instance in instances(loop.body):
            if instance.statement in self.reductions:
                element = instance.resolve_access(self.statements[instance.statement].write)
                moving = [e for e in element.indices if loop.name in e.names()]
                plain = (all(loop.name not in d.inner.names() for d, _ in e.divs) for e in moving)
                if moving and not any(plain):
                    return True
        return False


def explicit(value: Expr) -> bool:
    """Whether compiler vector types can express the value: float arithmetic on one dtype."""
    for e in walk_expr(value):
        match e:
            case Const() | Scalar() | Load():
                pass
            case Unary(op="neg"):
                pass
            case Binary(op=op) if op in _LANE_OPS:
                pass
            case Cast(arg=arg) if isinstance(arg, Const | Scalar) and arg.dtype == e.dtype:
                pass
            case _:
                return False
    return value.dtype in ("float32", "float64")


def _shifted(nodes: tuple[Node, ...], offsets: Mapping[str, int]) -> tuple[Node, ...]:
    mapping = {n: Affine.variable(n) + o for n, o in offsets.items() if o}
    return tuple(substitute(n, mapping) for n in nodes) if mapping else nodes


def _add(bound: Bound, value: int) -> Bound:
    return map_bound(bound, lambda a: a + value)


def _corner(bound: Bound, jams: tuple[Jam, ...], largest: bool) -> Bound:
    """Every affine part at the copy where it is largest (or smallest).

    For a "max" of several parts the largest is exact and the smallest too small, for a "min" the
    other way round: the shared range may come out too short, the whole range too long, never
    the reverse, and the edges are guarded.
    """

    def at_corner(a: Affine) -> Affine:
        for jam in jams:
            if (a.coefficient(jam.name) > 0) == largest:
                a = a.substitute({jam.name: Affine.variable(jam.name) + jam.last})
        return a

    return map_bound(bound, at_corner)


def _floored(bound: Bound, jams: tuple[Jam, ...]) -> bool:
    """Whether a jammed variable stands inside a floor, where corners say nothing."""
    names = {j.name for j in jams}
    return any(names & div.inner.names() for leaf in leaves(bound) for div, _ in leaf.divs)


def _longest(loop: For) -> float:
    """A bound on the iterations, as far as a constant difference of bounds tells."""
    differences = [b - a for a in leaves(loop.lower) for b in leaves(loop.upper)]
    simple = not any(isinstance(b, Extreme) and b.kind != k for b, k in (
        (loop.lower, "max"), (loop.upper, "min")
    ))
    known = [d.const // loop.step + 1 for d in differences if d.is_constant] if simple else []
    return min(known, default=inf)


def _trip_count(loop: For) -> int | None:
    if isinstance(loop.lower, Affine) and isinstance(loop.upper, Affine):
        difference = loop.upper - loop.lower
        if difference.is_constant:
            return max(0, difference.const // loop.step + 1)
    return None
