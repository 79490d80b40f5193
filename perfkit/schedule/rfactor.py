"""Sums in two phases: every chunk of a reduction's loop sums for itself, then the chunks are added.

A sum over many iterations into few elements keeps one program busy. Factored (P. Suriana, A. Adams
and S. Kamil, *Parallel associative reductions in Halide*, 2017), the chunks have elements of their
own and run in parallel; what they found is combined after them, in their order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import islpy as isl

from perfkit.analysis.reductions import Reduction, neutral_of, reductions
from perfkit.errors import TransformError
from perfkit.ir.affine import Affine, Constraint, Domain
from perfkit.ir.expr import Access, Binary, Const, Expr, Load, transform
from perfkit.ir.isl import Polyhedra, budget_errors, domain_of
from perfkit.ir.scop import Array, Scop, Statement
from perfkit.ir.tree import Leaf, Loop, Node, Sequence, enclosing, loops, map_loops, statements
from perfkit.schedule.base import rename_clashes, require, tidy
from perfkit.schedule.copies import unused_name
from perfkit.schedule.expand import affine_bounds
from perfkit.schedule.flow import preserves_flow
from perfkit.schedule.state import State

_TEXT = {"add": "{} + {}", "mul": "{} * {}", "min": "min({}, {})", "max": "max({}, {})"}
OPERATIONS = frozenset(_TEXT)


@dataclass(frozen=True)
class Rfactor:
    """Sum chunks of a reduction's loop apart, and add their sums afterwards.

    Before::

        for j for i: s[j] = s[j] + A[i, j]

    After ``Rfactor(S0, i, 1024)``, where ``part`` is a new array::

        for i_c                                   # chunks of 1024 iterations of i
          for j {
            part[i_c, j] = 0
            for i in chunk i_c: part[i_c, j] = part[i_c, j] + A[i, j]
          }
        for j for i_c: s[j] = s[j] + part[i_c, j]

    The loops that choose the element move outside the loops that are summed over. The statement
    must be alone in a nest whose loops are its own iterators, and the loop must carry nothing but
    a reduction that may be reordered: sums of floats only under ``fp="reassociate"``. Refuses
    what would change a flow of values.
    """

    statement: str
    loop: str
    size: int

    def __str__(self) -> str:
        return f"Rfactor({self.statement}, {self.loop}, {self.size})"

    def apply(self, state: State) -> State:
        require(isinstance(self.size, int) and self.size > 1, self, "chunks have two or more")
        scop = state.scop
        statement = scop.by_name().get(self.statement)
        if statement is None:
            raise TransformError(f"{self}: no statement is named {self.statement!r}")
        poly = Polyhedra(scop)
        found = reductions(poly, state.fp).get(statement.name)
        require(
            found is not None and found.op in OPERATIONS,
            self,
            f"{statement.name} is no sum, product, minimum or maximum that may be reordered"
            + (' under fp="strict"' if state.fp == "strict" else ""),
        )
        assert found is not None
        with budget_errors():
            made = _Factored(self, state, poly, statement, found).state()
        preserves_flow(made.original, made)
        return made


class _Factored:
    """The pieces of one application."""

    def __init__(
        self, step: Rfactor, state: State, poly: Polyhedra, s: Statement, reduction: Reduction
    ) -> None:
        self.step, self.before, self.s, self.op = step, state, s, reduction.op
        self.scop: Scop = state.scop
        self.poly = poly
        tree = tidy(state.tree)
        around = enclosing(tree, s.name)
        alone = [loop for loop in around if statements(loop) == (s.name,)]
        require(
            any(loop.name == step.loop for loop in alone),
            step,
            f"{s.name} is not alone in a loop named {step.loop}",
        )
        self.outer, self.nest = around[: len(around) - len(alone)], alone
        self.own: dict[str, str] = {}  # loop -> iterator
        for loop in alone:
            self.own[loop.name] = self._iterator(loop)
        inner = set(self.own.values())
        require(
            not any(loop.expression(s.name).names() & inner for loop in self.outer),
            step,
            "a loop around the nest moves with an iterator of it",
        )
        self.kept = [d for d, e in enumerate(s.write.indices) if e.names() & inner]
        plain = [s.write.indices[d] for d in self.kept]
        require(
            all(e == Affine.variable(next(iter(e.names()))) for e in plain)
            and len(set(plain)) == len(plain),
            step,
            f"the indices of {s.write} are no iterators of the nest",
        )
        elements = {next(iter(e.names())) for e in plain}
        self.element_loops = [x for x in alone if self.own[x.name] in elements]
        self.summed_loops = [x for x in alone if self.own[x.name] not in elements]
        require(
            any(x.name == step.loop for x in self.summed_loops),
            step,
            f"{step.loop} chooses the element of {s.write.array}, nothing is summed over it",
        )
        self._name()

    def _iterator(self, loop: Loop) -> str:
        value = loop.expression(self.s.name)
        names = value.names()
        (only,) = names if len(names) == 1 else ("",)
        fits = only in self.s.iterators and value == Affine.variable(only)
        fits = fits and only not in self.own.values()
        require(fits, self.step, f"loop {loop.name} is no iterator of {self.s.name}")
        return only

    def _name(self) -> None:
        scop, tree = self.scop, self.before.tree
        taken = {*scop.parameters, *(a.name for a in scop.arrays), *(x.name for x in scop.scalars),
                 *(x.name for x in loops(tree)), *self.s.iterators}  # fmt: skip
        self.chunk = unused_name(f"{self.step.loop}_c", taken)
        self.part = unused_name(f"{self.s.write.array}_part", taken | {self.chunk})
        names = {x.name for x in scop.statements}
        self.start = unused_name(f"{self.s.name}_start", names)
        self.combine = unused_name(f"{self.s.name}_combine", names)

    # -- statements ----------------------------------------------------------------------------

    def state(self) -> State:
        s, chunk = self.s, Affine.variable(self.chunk)
        low, high = self._bounds()
        size = self.step.size
        dtype = self.scop.array(s.write.array).dtype
        indices = (chunk, *(s.write.indices[d] for d in self.kept))
        element = Access(self.part, indices)
        position = Affine.variable(self.own[self.step.loop]) - low - chunk * size
        inside = (Constraint(position), Constraint(-position + (size - 1)))
        main = replace(
            s,
            domain=Domain((self.chunk, *s.iterators), s.domain.pieces).where(*inside),
            write=element,
            value=self._redirected(s.value, element),
            origin=s.origin or s.name,
        )
        domain = self._chunks(main)
        total = Load(dtype, s.write)
        merge: Expr = Binary(dtype, self.op, total, Load(dtype, element))  # type: ignore[arg-type]
        neutral = neutral_of(self.op, dtype)
        start = Statement(self.start, domain, element, Const(dtype, neutral),
                          text=f"{element} = {neutral}")  # fmt: skip
        added = _TEXT[self.op].format(s.write, element)
        combine = Statement(self.combine, domain, s.write, merge, text=f"{s.write} = {added}")
        shape = self.scop.array(s.write.array).shape
        extents = ((high - low).floordiv(size) + 1, *(shape[d] for d in self.kept))
        array = Array(self.part, dtype, extents, local=True, live_out=False)
        parts = {s.name: (start, main, combine)}
        tree = self._tree(tidy(self.before.tree))
        plain = map_loops(tree, lambda loop: replace(loop, marks=()))
        scop = replace(
            self.scop,
            arrays=(*self.scop.arrays, array),
            statements=tuple(p for x in self.scop.statements for p in parts.get(x.name, (x,))),
            tree=plain,
        )
        return replace(self.before, scop=scop, tree=tree)

    def _bounds(self) -> tuple[Affine, Affine]:
        name = self.own[self.step.loop]
        iterators = ", ".join(self.s.iterators)
        values = self.poly.map(f"{{ {self.s.name}[{iterators}] -> [{name}] }}")
        bounds = affine_bounds(values.intersect_domain(self.poly.domains[self.s.name]).range())
        if bounds is None:
            raise TransformError(f"{self.step}: {self.step.loop} has no affine bounds")
        return bounds

    def _redirected(self, value: Expr, element: Access) -> Expr:
        def change(e: Expr) -> Expr:
            same = isinstance(e, Load) and e.access == self.s.write
            return Load(e.dtype, element) if same else e

        return transform(value, change)

    def _chunks(self, main: Statement) -> Domain:
        """The chunks and elements that exist, for every iteration of the loops outside."""
        whole = self.poly.domain_set(main.name, main.domain).intersect_params(self.poly.context)
        summed = {self.own[x.name] for x in self.summed_loops}
        for k in reversed(range(len(main.iterators))):
            if main.iterators[k] in summed:
                whole = whole.project_out(isl.dim_type.set, k, 1)
        left = tuple(i for i in main.iterators if i not in summed)
        return domain_of(whole.coalesce().gist_params(self.poly.context), left)

    # -- the tree ------------------------------------------------------------------------------

    def _tree(self, tree: Node) -> Node:
        first = self.nest[0].name

        def visit(node: Node) -> Node:
            match node:
                case Loop(name=name) if name == first:
                    return self._phases(tree)
                case Loop():
                    inside = visit(node.body)
                    mine = dict(node.schedule).get(self.s.name)
                    added = () if mine is None else ((self.start, mine), (self.combine, mine))
                    return replace(node, schedule=(*node.schedule, *added), body=inside)
                case Sequence(children=children):
                    return Sequence(tuple(map(visit, children)))
                case _:
                    return node

        return tidy(visit(tree))

    def _phases(self, tree: Node) -> Node:
        chunk = Affine.variable(self.chunk)
        body: Node = Leaf(self.s.name)
        for loop in reversed(self.summed_loops):
            body = replace(loop, body=body)
        body = Sequence((Leaf(self.start), body))
        for loop in reversed(self.element_loops):
            value = loop.expression(self.s.name)
            body = Loop(loop.name, ((self.start, value), (self.s.name, value)), body, loop.marks)
        main = Loop(self.chunk, ((self.start, chunk), (self.s.name, chunk)), body)

        last: Node = Loop(self.chunk, ((self.combine, chunk),), Leaf(self.combine))
        for loop in reversed(self.element_loops):
            last = Loop(loop.name, ((self.combine, loop.expression(self.s.name)),), last)
        taken = frozenset({x.name for x in loops(tree)} | {self.chunk})
        return Sequence((main, rename_clashes(last, taken)))


__all__ = ["OPERATIONS", "Rfactor"]
