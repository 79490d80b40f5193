"""Transforms of single loops and of perfect nests: interchange, reversal, skewing, shifting."""

from __future__ import annotations

from dataclasses import dataclass

from perfkit.analysis.dependences import Analysis
from perfkit.ir.affine import Affine
from perfkit.ir.tree import Node, find_loop, statements
from perfkit.schedule.base import (
    AffineLike,
    TreeTransform,
    affine,
    chain,
    change_expressions,
    nest,
    replace_node,
    require,
    tidy,
)
from perfkit.schedule.state import State


@dataclass(frozen=True)
class Interchange(TreeTransform):
    """Swap two loops of a perfect nest, together with their marks.

    Before ``for i for j S``, after ``Interchange(i, j)``: ``for j for i S``.
    """

    a: str
    b: str

    def __str__(self) -> str:
        return f"Interchange({self.a}, {self.b})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        require(self.a != self.b, self, "the two loops must differ")
        tree = tidy(state.tree)
        find_loop(tree, self.b)
        band = chain(tree, self.a)
        names = [loop.name for loop in band]
        if self.b not in names:
            band = chain(tree, self.b)
            names = [loop.name for loop in band]
        require(self.a in names and self.b in names, self, "the loops are not perfectly nested")
        first, last = sorted((names.index(self.a), names.index(self.b)))
        order = list(band[: last + 1])
        order[first], order[last] = order[last], order[first]
        return (replace_node(tree, band[0], nest(tuple(order), band[last].body)),)


@dataclass(frozen=True)
class Reverse(TreeTransform):
    """Run a loop backwards.

    Before ``for i(S: i) S``, after ``Reverse(i)``: ``for i(S: -i) S``.
    """

    loop: str

    def __str__(self) -> str:
        return f"Reverse({self.loop})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        return (change_expressions(tidy(state.tree), self.loop, lambda _, e: -e),)


@dataclass(frozen=True)
class Skew(TreeTransform):
    """Add a multiple of one loop to another; repeat it to skew by several loops.

    Before ``for t(S: t) for i(S: i) S``, after ``Skew(i, by=t, factor=2)``:
    ``for t(S: t) for i(S: i + 2*t) S``. ``by`` must schedule every statement of ``loop``.
    """

    loop: str
    by: str
    factor: int = 1

    def __str__(self) -> str:
        return f"Skew({self.loop}, by={self.by}, factor={self.factor})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        require(isinstance(self.factor, int) and self.factor != 0, self, "the factor is zero")
        require(self.loop != self.by, self, "a loop cannot be skewed by itself")
        tree = tidy(state.tree)
        loop, by = find_loop(tree, self.loop), find_loop(tree, self.by)
        require(
            set(statements(loop)) <= set(statements(by)),
            self,
            f"{self.by} does not schedule every statement of {self.loop}",
        )
        added = dict(by.schedule)
        return (change_expressions(tree, self.loop, lambda s, e: e + added[s] * self.factor),)


@dataclass(frozen=True)
class Wavefront(TreeTransform):
    """Turn the outer loop of a nest into a sequence of wavefronts.

    Before ``for a(S: a) for b(S: b) S``, after ``Wavefront(a, b)``:
    ``for a(S: a + b) for b(S: b) S``. On a permutable band ``b`` is parallel afterwards.
    """

    outer: str
    inner: str
    factor: int = 1

    def __str__(self) -> str:
        factor = f", factor={self.factor}" if self.factor != 1 else ""
        return f"Wavefront({self.outer}, {self.inner}{factor})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        names = [loop.name for loop in chain(tidy(state.tree), self.outer)]
        require(self.inner in names[1:], self, f"{self.inner} is not perfectly nested inside")
        return Skew(self.outer, self.inner, self.factor).rewrites(state, analysis)


@dataclass(frozen=True, init=False)
class Shift(TreeTransform):
    """Delay the instances of one statement in one loop by an amount affine in the sizes.

    Before ``for i(S0: i, S1: i) {S0; S1}``, after ``Shift(S1, i, 2)``:
    ``for i(S0: i, S1: i + 2) {S0; S1}``.
    """

    statement: str
    loop: str
    amount: Affine

    def __init__(self, statement: str, loop: str, amount: AffineLike) -> None:
        object.__setattr__(self, "statement", statement)
        object.__setattr__(self, "loop", loop)
        object.__setattr__(self, "amount", affine(amount))

    def __str__(self) -> str:
        return f"Shift({self.statement}, {self.loop}, {self.amount})"

    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        unknown = self.amount.names() - set(state.scop.parameters)
        require(not unknown, self, f"{', '.join(sorted(unknown))}: not a size of the program")
        tree = tidy(state.tree)
        inside = statements(find_loop(tree, self.loop))
        require(self.statement in inside, self, f"{self.statement} is not inside {self.loop}")
        return (
            change_expressions(
                tree, self.loop, lambda s, e: e + self.amount if s == self.statement else e
            ),
        )


__all__ = ["Interchange", "Reverse", "Shift", "Skew", "Wavefront"]
