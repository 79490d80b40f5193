"""Index-set splitting: one statement becomes two with complementary domains.

Splitting (Griebl, Feautrier, Lengauer, "Index set splitting", 2000) lets the two halves be
scheduled apart: the part that carries a dependence no longer freezes the part that does not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from perfkit.errors import ScriptError, TransformError
from perfkit.ir.affine import Constraint, Domain, Piece
from perfkit.ir.isl import Polyhedra, budget_errors, domain_of
from perfkit.ir.scop import Scop, Statement
from perfkit.ir.tree import Leaf, Loop, Node, Sequence, parse_affine
from perfkit.schedule.state import State

_RELATION = re.compile(r"(<=|>=|==|=|<|>)")


@dataclass(frozen=True)
class Split:
    """Run the instances of a statement that satisfy a condition apart from the others.

    Before::

        for i S0

    After ``Split("S0", "i <= k")``, where the loops still run both parts together::

        for i { S0 (i <= k); S0_2 (i > k) }

    The condition is one affine comparison over the statement's iterators and the sizes. Refuses a
    condition that all instances, or none, satisfy. Always legal: no instance moves.
    """

    statement: str
    condition: str

    def apply(self, state: State) -> State:
        scop = state.scop
        statement = scop.by_name().get(self.statement)
        if statement is None:
            raise TransformError(f"{self}: no statement is named {self.statement!r}")
        inside, outside = condition_pieces(self.condition)
        known = {*statement.iterators, *scop.parameters}
        unknown = {n for c in inside for n in c.expr.names()} - known
        if unknown:
            raise TransformError(
                f"{self}: {min(unknown)!r} is neither an iterator of {self.statement} nor a size"
            )
        first, second = self._domains(scop, statement, inside, outside)
        name = _part_name(scop, statement)
        origin = statement.origin or statement.name
        parts = {
            statement.name: replace(statement, domain=first),
            name: replace(statement, name=name, domain=second, origin=origin),
        }
        statements = tuple(
            p
            for s in scop.statements
            for p in (parts.values() if s.name == statement.name else [s])
        )
        scop = replace(
            scop, statements=statements, tree=_with_part(scop.tree, statement.name, name)
        )
        return replace(state, scop=scop, tree=_with_part(state.tree, statement.name, name))

    def _domains(
        self, scop: Scop, statement: Statement, inside: Piece, outside: tuple[Piece, ...]
    ) -> tuple[Domain, Domain]:
        poly = Polyhedra(scop)
        with budget_errors():
            whole = poly.domains[statement.name]
            halves = []
            for pieces in ((inside,), outside):
                part = whole.intersect(
                    poly.domain_set(statement.name, Domain(statement.iterators, pieces))
                )
                if part.is_empty():
                    raise TransformError(
                        f"{self}: the condition does not separate the instances of {statement.name}"
                    )
                halves.append(
                    domain_of(part.coalesce().gist_params(poly.context), statement.iterators)
                )
        return halves[0], halves[1]

    def __str__(self) -> str:
        return f'Split({self.statement}, "{self.condition}")'


def condition_pieces(text: str) -> tuple[Piece, tuple[Piece, ...]]:
    """A comparison as one conjunction, and its complement as a union of conjunctions."""
    parts = _RELATION.split(text)
    if len(parts) != 3:
        raise ScriptError(f"expected one comparison such as 'i <= k', found {text!r}")
    left, right = parse_affine(parts[0]), parse_affine(parts[2])
    match parts[1]:
        case "<=":
            expr = right - left
        case "<":
            expr = right - left - 1
        case ">=":
            expr = left - right
        case ">":
            expr = left - right - 1
        case _:
            expr = left - right
            return (Constraint(expr, "eq"),), ((Constraint(expr - 1),), (Constraint(-expr - 1),))
    return (Constraint(expr),), ((Constraint(-expr - 1),),)


def _part_name(scop: Scop, statement: Statement) -> str:
    taken = {s.name for s in scop.statements}
    base, k = statement.origin or statement.name, 2
    while f"{base}_{k}" in taken:
        k += 1
    return f"{base}_{k}"


def _with_part(node: Node, name: str, part: str) -> Node:
    """The tree in which ``part`` runs right after ``name``, in the same loops."""
    match node:
        case Leaf(statement=s):
            return Sequence((node, Leaf(part))) if s == name else node
        case Loop():
            return replace(
                node,
                schedule=tuple(
                    e
                    for s, x in node.schedule
                    for e in ([(s, x), (part, x)] if s == name else [(s, x)])
                ),
                body=_with_part(node.body, name, part),
            )
        case Sequence(children=children):
            flat: list[Node] = []
            for child in children:
                changed = _with_part(child, name, part)
                # a leaf that became a pair joins the sequence that it stood in
                if isinstance(child, Leaf) and isinstance(changed, Sequence):
                    flat.extend(changed.children)
                else:
                    flat.append(changed)
            return Sequence(tuple(flat))
