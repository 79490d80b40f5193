"""Transforms of the tree's shape: fusion, distribution, embedding, reordering, explicit trees."""

from __future__ import annotations

from dataclasses import dataclass, replace

import islpy as isl

from perfkit.analysis.dependences import Analysis
from perfkit.errors import TransformError
from perfkit.ir.affine import Affine
from perfkit.ir.isl import affine_of, budget_errors
from perfkit.ir.tree import (
    Leaf,
    Loop,
    Node,
    Sequence,
    enclosing,
    find_loop,
    parse,
    show,
    statements,
)
from perfkit.schedule.base import (
    AffineLike,
    TreeTransform,
    affine,
    children_of,
    label,
    loop_names,
    part_of,
    rename_clashes,
    replace_node,
    require,
    siblings,
    tidy,
)
from perfkit.schedule.legality import largest_lead
from perfkit.schedule.state import State


@dataclass(frozen=True)
class Fuse(TreeTransform):
    """Merge two sibling loops into one; the earlier body runs first in each iteration.

    Before ``{for i S0; for j S1}``, after ``Fuse(i, j, shift=k)``:
    ``for i(S0: i, S1: j + k) {S0; S1}``. What stands between the loops stays after the fused
    loop, or before it where only that is legal. Marks of the second loop are dropped.
    """

    a: str
    b: str
    shift: int = 0

    def __str__(self) -> str:
        shift = f", shift={self.shift}" if self.shift else ""
        return f"Fuse({self.a}, {self.b}{shift})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        require(self.a != self.b, self, "a loop cannot be fused with itself")
        tree = tidy(state.tree)
        loops = {self.a: find_loop(tree, self.a), self.b: find_loop(tree, self.b)}
        sequence = siblings(tree, (self.a, self.b), self)
        second = loops[self.b]
        moved = replace(
            second, schedule=tuple((s, e + self.shift) for s, e in second.schedule), marks=()
        )
        parts = [moved if c is second else c for c in sequence.children if c in loops.values()]
        fused = Loop(
            self.a,
            tuple(p for part in parts if isinstance(part, Loop) for p in part.schedule),
            Sequence(tuple(part.body for part in parts if isinstance(part, Loop))),
            loops[self.a].marks,
        )
        places = [k for k, c in enumerate(sequence.children) if c in loops.values()]
        results = []
        for keep in places if places[1] - places[0] > 1 else places[:1]:
            children = [
                fused if k == keep else c
                for k, c in enumerate(sequence.children)
                if k == keep or k not in places
            ]
            results.append(replace_node(tree, sequence, Sequence(tuple(children))))
        return tuple(results)


def solve_shift(state: State, analysis: Analysis, a: str, b: str) -> int | None:
    """The smallest non-negative ``shift`` that lets ``Fuse(a, b)`` keep the dependences between
    the two loops at their own level; None when no constant is enough.

    Every dependence from ``a`` to ``b`` needs ``value_a <= value_b + shift``: the shift is the
    largest lead, an integer program (compare Bondhugula's retiming, LOOPer's shifting solver).
    """
    deps = analysis.dependences(state.scop, state.fp)
    lead = largest_lead(deps, tidy(state.tree), a, b)
    return None if lead is None else max(0, lead)


@dataclass(frozen=True)
class Distribute(TreeTransform):
    """Split a loop over a sequence into one loop per child, or into two after a child.

    Before ``for i {S0; S1; S2}``, after ``Distribute(i)``: ``{for i S0; for i_2 S1; for i_3 S2}``;
    after ``Distribute(i, after=S0)``: ``{for i S0; for i_2 {S1; S2}}``. ``after`` names a child or
    a statement below one. Marks stay on every part.
    """

    loop: str
    after: str = ""

    def __str__(self) -> str:
        return f"Distribute({self.loop}{f', after={self.after}' if self.after else ''})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        tree = tidy(state.tree)
        loop = find_loop(tree, self.loop)
        if not isinstance(loop.body, Sequence):
            raise TransformError(f"{self}: the loop holds a single child")
        children = loop.body.children
        groups: list[tuple[Node, ...]]
        if self.after:
            cut = next(
                (
                    k
                    for k, c in enumerate(children)
                    if label(c) == self.after or self.after in statements(c)
                ),
                None,
            )
            if cut is None or cut == len(children) - 1:
                raise TransformError(f"{self}: {self.after} is not a child with another after it")
            groups = [children[: cut + 1], children[cut + 1 :]]
        else:
            groups = [(c,) for c in children]
        taken = set(loop_names(tree))
        parts: list[Node] = []
        for k, group in enumerate(groups):
            part = part_of(loop, Sequence(group))
            if k:
                head = rename_clashes(replace(part, body=Sequence(())), frozenset(taken))
                assert isinstance(head, Loop)
                taken.add(head.name)
                part = replace(head, body=part.body)
            parts.append(part)
        return (replace_node(tree, loop, Sequence(tuple(parts))),)


@dataclass(frozen=True, init=False)
class Embed(TreeTransform):
    """Sink a statement into a sibling loop at one fixed value, so that a nest becomes perfect.

    Before ``{S0; for k(S1: k) S1}``, after ``Embed(S0, k, at=first)``:
    ``for k(S0: 0, S1: k) {S0; S1}``. ``at`` is ``first`` or ``last`` (the loop's bounds at the
    same outer iteration) or an expression in the statement's iterators and the sizes.
    """

    statement: str
    loop: str
    at: str | Affine = "first"

    def __init__(self, statement: str, loop: str, at: AffineLike = "first") -> None:
        object.__setattr__(self, "statement", statement)
        object.__setattr__(self, "loop", loop)
        object.__setattr__(self, "at", at if at in ("first", "last") else affine(at))

    def __str__(self) -> str:
        return f"Embed({self.statement}, {self.loop}, at={self.at})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        tree = tidy(state.tree)
        loop = find_loop(tree, self.loop)
        sequence = siblings(tree, (self.statement, self.loop), self)
        leaf = next(c for c in sequence.children if label(c) == self.statement)
        require(isinstance(leaf, Leaf), self, f"{self.statement} is not a statement")
        statement = state.scop.statement(self.statement)
        if isinstance(self.at, Affine):
            value = self.at
            unknown = value.names() - set(statement.iterators) - set(state.scop.parameters)
            require(not unknown, self, f"{', '.join(sorted(unknown))}: unknown in {self.statement}")
        else:
            value = self._bound(state, analysis, tree, loop)
        before = sequence.children.index(leaf) < sequence.children.index(loop)
        entry = ((self.statement, value),)
        wider = replace(
            loop,
            schedule=entry + loop.schedule if before else loop.schedule + entry,
            body=Sequence((leaf, loop.body) if before else (loop.body, leaf)),
        )
        children = tuple(wider if c is loop else c for c in sequence.children if c is not leaf)
        return (replace_node(tree, sequence, Sequence(children)),)

    def _bound(self, state: State, analysis: Analysis, tree: Node, loop: Loop) -> Affine:
        """The first or last value of the loop in terms of the statement's iterators."""
        poly = analysis.polyhedra(state.scop)
        iterators = {s.name: s.iterators for s in state.scop.statements}

        def outer(name: str) -> list[Affine]:
            found = []
            for level in enclosing(tree, name):
                if level.name == loop.name:
                    break
                found.append(level.expression(name))
            return found

        def schedule(name: str, values: list[Affine]) -> isl.Map:
            text = f"{{ {name}[{', '.join(iterators[name])}] -> [{', '.join(map(str, values))}] }}"
            return poly.map(text).intersect_domain(poly.domains[name])

        with budget_errors():
            poly.renew_budget()
            mine = schedule(self.statement, outer(self.statement))
            values: isl.Map | None = None
            for name, expression in loop.schedule:
                prefix = schedule(name, outer(name))
                reached = mine.apply_range(prefix.reverse())
                here = reached.apply_range(schedule(name, [expression]))
                values = here if values is None else values.union(here)
            assert values is not None
            bound = values.lexmin() if self.at == "first" else values.lexmax()
            found: list[isl.MultiAff] = []  # read after the walk: errors do not pass through isl
            bound.as_pw_multi_aff().gist(poly.domains[self.statement]).coalesce().foreach_piece(
                lambda _, value: found.append(value)
            )
            try:
                pieces = {affine_of(v.get_aff(0), iterators[self.statement]) for v in found}
            except ValueError:  # a fraction, where only multiples of something are reached
                pieces = set()
        if len(pieces) != 1:
            raise TransformError(
                f"{self}: the {self.at} iteration of {self.loop} is not one expression; "
                "give at= explicitly"
            )
        return next(iter(pieces))


@dataclass(frozen=True, init=False)
class Reorder(TreeTransform):
    """Put the children of a sequence into another textual order.

    Before ``{S0; for i S1}``, after ``Reorder(i, S0)``: ``{for i S1; S0}``. Names every child.
    """

    children: tuple[str, ...]

    def __init__(self, *children: str) -> None:
        object.__setattr__(self, "children", tuple(children))

    def __str__(self) -> str:
        return f"Reorder({', '.join(self.children)})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        tree = tidy(state.tree)
        require(len(set(self.children)) == len(self.children) > 1, self, "name every child once")
        sequence = siblings(tree, self.children, self)
        found = {label(c): c for c in children_of(sequence)}
        require(set(found) == set(self.children), self, f"the sequence holds {', '.join(found)}")
        order = tuple(found[name] for name in self.children)
        return (replace_node(tree, sequence, Sequence(order)),)


@dataclass(frozen=True, init=False)
class Order(TreeTransform):
    """Replace the whole tree by an explicit one, in the text form of :mod:`perfkit.ir.tree`.

    ``Order(\"\"\"for j(S0: j) for i(S0: i) S0\"\"\")``. The results of a polyhedral scheduler are
    carried in scripts this way.
    """

    text: str

    def __init__(self, text: str) -> None:
        object.__setattr__(self, "text", show(tidy(parse(text))))

    @staticmethod
    def of(tree: Node) -> Order:
        return Order(show(tree))

    def __str__(self) -> str:
        return f'Order("""\n{self.text}\n""")'

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        tree = parse(self.text)
        known = {s.name: s for s in state.scop.statements}
        name = "Order"
        missing = set(known) - set(statements(tree))
        extra = set(statements(tree)) - set(known)
        require(not missing, name, f"the tree lacks {', '.join(sorted(missing))}")
        require(not extra, name, f"unknown statements {', '.join(sorted(extra))}")
        sizes = set(state.scop.parameters)
        poly = analysis.polyhedra(state.scop)
        for statement in known.values():
            used = {n for loop in enclosing(tree, statement.name)
                    for n in loop.expression(statement.name).names()}  # fmt: skip
            unknown = used - set(statement.iterators) - sizes
            require(not unknown, name, f"{statement.name} has no {', '.join(sorted(unknown))}")
        with budget_errors():
            poly.renew_budget()
            for statement_name, schedule in poly.schedule_maps(tree).items():
                require(
                    schedule.is_injective(),
                    name,
                    f"two instances of {statement_name} share one place in the order",
                )
        return (tree,)


__all__ = ["Distribute", "Embed", "Fuse", "Order", "Reorder", "solve_shift"]
