"""Register promotion: array elements that a loop keeps touching live in C locals meanwhile.

Around an innermost loop, an access that does not depend on the loop's variable is loaded before the
loop and stored after it, when nothing else in the loop can touch the same element::

    for (k = 0; k <= p; k++)              double C_1 = C[i][j];
      C[i][j] += A[i][k] * B[k][j];   ->  for (k = 0; k <= p; k++)
                                            C_1 += A[i][k] * B[k][j];
                                          C[i][j] = C_1;

Two accesses are told apart by a constant difference in some subscript, or else by asking isl
whether they can meet within the bounds of the loops around them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from perfkit.codegen.names import Names
from perfkit.codegen.nodes import (
    For,
    Guard,
    Instance,
    Lanes,
    Let,
    Node,
    Register,
    Scope,
    bound_names,
    conjunction,
    constraints_above,
    constraints_below,
    map_bound,
)
from perfkit.errors import InternalError
from perfkit.ir.affine import Affine, Constraint, Piece
from perfkit.ir.expr import Access
from perfkit.ir.isl import Polyhedra
from perfkit.ir.scop import Scop, Statement

MAX_READ_ONLY = 16
"""Invariant operands kept in registers; more would only be spilled."""


@dataclass(frozen=True, slots=True)
class Place:
    """An element (``lanes`` None) or a vector of neighbours that an instance touches.

    ``part`` is set for the result of a reduction whose instances run in lanes: each vector of a
    strip has its own partial result.
    """

    access: Access
    lanes: Lanes | None = None
    part: int | None = None


def place_of(access: Access, instance: Instance, statement: Statement) -> Place:
    """What ``instance`` of ``statement`` touches through one of its accesses."""
    found = instance.resolve_access(access)
    lanes = instance.lanes
    if lanes is None:
        return Place(found)
    if any(lanes.name in i.names() for i in found.indices):
        return Place(found, replace(lanes, part=0))
    return Place(found, None, lanes.part if access == statement.write else None)


class Promoter:
    """Promotes around innermost loops; names registers after their arrays."""

    def __init__(
        self,
        poly: Polyhedra,
        scop: Scop,
        reductions: Mapping[str, str],
        variables: frozenset[str] = frozenset(),
        names: Names | None = None,
    ) -> None:
        """``variables`` are the arrays that are C variables already."""
        self.poly = poly
        self.scop = scop
        self.statements: Mapping[str, Statement] = scop.by_name()
        self.reductions = reductions
        self.variables = variables
        self.names = names or Names()

    def promote(
        self, nodes: tuple[Node, ...], around: tuple[tuple[Piece, ...], ...] = ()
    ) -> tuple[Node, ...]:
        """``around`` holds the conditions under which ``nodes`` run."""
        result: list[Node] = []
        for node in nodes:
            match node:
                case For() if _straight(node.body):
                    result += self._loop(node, around)
                case For():
                    inner = (*around, _range(node))
                    result.append(replace(node, body=self.promote(node.body, inner)))
                case Guard():
                    inner = (*around, node.condition)
                    result.append(Guard(node.condition, self.promote(node.body, inner)))
                case Let():
                    start = constraints_above(Affine.variable(node.name), node.lower)
                    result.append(replace(node, body=self.promote(node.body, (*around, start))))
                case Instance():
                    result.append(node)
                case _:
                    result.append(replace(node, body=self.promote(node.body, around)))
        return tuple(result)

    def _loop(self, loop: For, around: tuple[tuple[Piece, ...], ...]) -> tuple[Node, ...]:
        if loop.ivdep or loop.mark("parallel") is not None:
            return (loop,)
        body = [n for n in loop.body if isinstance(n, Instance)]
        written: dict[Place, None] = {}
        read: dict[Place, None] = {}
        partial: dict[Place, Instance] = {}
        uses: dict[Place, set[str]] = {}
        for instance in body:
            statement = self.statements[instance.statement]
            target = place_of(statement.write, instance, statement)
            written[target] = None
            if target.part is not None:
                partial[target] = instance
            folds = self.reductions.get(instance.statement, "")
            uses.setdefault(target, set()).add(folds)
            for access in dict.fromkeys(statement.reads):
                place = place_of(access, instance, statement)
                read[place] = None
                uses.setdefault(place, set()).add(folds if access == statement.write else "")
        registers: list[Register] = []
        read_only = 0
        touched = list(dict.fromkeys([*written, *read]))
        for place in touched:
            if any(loop.name in i.names() for i in place.access.indices):
                continue
            if place.lanes is not None and place.lanes.name == loop.name:
                continue
            array = self.scop.array(place.access.array)
            if array.name in self.variables and place not in partial:
                continue
            rivals = [
                other for other in touched
                if other.access.array == array.name and other != place
                and not (other.access == place.access and place.part is not None)
                and (place in written or other in written)
            ]  # fmt: skip
            if place in partial:
                # It is added to memory in the end, whatever others have added there meanwhile.
                own = {self.reductions[partial[place].statement]}
                rivals = [other for other in rivals if uses[other] != own]
            if any(not self._apart(place, other, loop, around) for other in rivals):
                if place in partial:
                    raise InternalError(f"a vector reduction of {array.name} cannot be told apart")
                continue
            if place not in written:
                read_only += 1
                if read_only > MAX_READ_ONLY or not any(i.lanes for i in body):
                    continue
            name = self.names.fresh(f"{array.name}_")
            if place in partial:
                instance = partial[place]
                registers.append(
                    Register(
                        name, place.access, array.dtype, instance.lanes,
                        combine=self.reductions[instance.statement], part=place.part,
                    )
                )  # fmt: skip
            else:
                registers.append(
                    Register(
                        name, place.access, array.dtype, place.lanes,
                        load=place in read, store=place in written,
                    )
                )  # fmt: skip
        if not registers:
            return (loop,)
        scope = Scope(tuple(registers), (loop,))
        runs = _runs(loop)
        return (scope,) if runs is None else (Guard(runs, (scope,)),)

    def _apart(self, a: Place, b: Place, loop: For, around: tuple[tuple[Piece, ...], ...]) -> bool:
        """Whether ``a`` (in any iteration) and ``b`` (in any iteration) are never one element."""
        for i, j in zip(a.access.indices, b.access.indices, strict=True):
            difference = i - j
            if loop.name in i.names() | j.names() or not difference.is_constant:
                continue
            distance = abs(difference.const)
            reach = 0
            for place, index in ((a, i), (b, j)):
                if place.lanes is not None:
                    stride = abs(index.coefficient(place.lanes.name)) * place.lanes.step
                    reach = max(reach, stride * (place.lanes.count - 1))
            if distance > reach:
                return True
        return self._never_meet(a, b, loop, around)

    def _never_meet(
        self, a: Place, b: Place, loop: For, around: tuple[tuple[Piece, ...], ...]
    ) -> bool:
        names: dict[str, None] = {}
        conditions = [*around, _range(loop)]
        later = {loop.name: Affine.variable(f"{loop.name}_b")}
        conditions.append(tuple(tuple(c.substitute(later) for c in p) for p in _range(loop)))
        first = _lane_access(a, "lane_a", conditions)
        second = _lane_access(b, "lane_b", conditions).substitute(later)
        same = tuple(
            Constraint(i - j, "eq") for i, j in zip(first.indices, second.indices, strict=True)
        )
        conditions.append((same,))
        for condition in conditions:
            for piece in condition:
                for c in piece:
                    names.update(dict.fromkeys(sorted(c.expr.names())))
        free = [n for n in names if n not in self.scop.parameters]
        text = " and ".join(_text(c) for c in conditions)
        found = self.poly.set(f"{{ [{', '.join(free)}] : {text} }}")
        return bool(found.intersect_params(self.poly.context).is_empty())


def _lane_access(place: Place, lane: str, conditions: list[tuple[Piece, ...]]) -> Access:
    """The element that one lane touches; the lane's range is added to ``conditions``."""
    if place.lanes is None:
        return place.access
    var = Affine.variable(lane)
    conditions.append(((Constraint(var), Constraint(-var + (place.lanes.count - 1))),))
    name = place.lanes.name
    return place.access.substitute({name: Affine.variable(name) + var * place.lanes.step})


def _text(condition: tuple[Piece, ...]) -> str:
    if not condition:
        return "false"
    return "(" + " or ".join(" and ".join(map(str, p)) or "true" for p in condition) + ")"


def _straight(body: tuple[Node, ...]) -> bool:
    return all(isinstance(n, Instance) for n in body)


def _range(loop: For) -> tuple[Piece, ...]:
    var = Affine.variable(loop.name)
    last = var + (loop.width - 1) * loop.step
    return conjunction([constraints_above(var, loop.lower), constraints_below(last, loop.upper)])


def _runs(loop: For) -> tuple[Piece, ...] | None:
    """The condition under which the loop runs at all; None when it always does."""
    last = (loop.width - 1) * loop.step
    if loop.resumes:
        return constraints_below(Affine.variable(loop.name) + last, loop.upper)
    if isinstance(loop.lower, Affine):
        condition = constraints_below(loop.lower + last, loop.upper)
    elif isinstance(loop.upper, Affine):
        condition = constraints_above(loop.upper - last, loop.lower)
    else:
        parts = [
            constraints_below(a + last, loop.upper) if isinstance(a, Affine) else ((),)
            for a in loop.lower.args
        ]
        if any(not isinstance(a, Affine) for a in loop.lower.args):
            return (
                tuple(c for p in _range(loop)[:1] for c in p),
            )  # never reached by isl's bounds, which nest one level
        condition = (
            conjunction(parts) if loop.lower.kind == "max" else tuple(p for q in parts for p in q)
        )
    kept = tuple(
        tuple(c for c in p if not (c.expr.is_constant and c.expr.const >= 0)) for p in condition
    )
    return None if any(not p for p in kept) else kept


__all__ = ["Place", "Promoter", "bound_names", "map_bound", "place_of"]
