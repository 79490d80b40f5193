"""A mapping to the GPU for any program: parallel loops go to the grid, the rest keeps its order.

Orders are tried as they are and as isl's scheduler finds them without fusion, each also with its
temporaries expanded and its statements split. The best is the one whose worst statement has the
fewest loops left that must run one after the other; then fewer host loops, then fewer launches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from perfkit import log
from perfkit.analysis.dependences import Analysis
from perfkit.errors import BudgetExceeded, ScheduleError
from perfkit.ir.expr import ITEMSIZE, Expr, loads
from perfkit.ir.scop import Statement
from perfkit.ir.tree import Leaf, Loop, Node, Sequence, enclosing, loops, statements
from perfkit.schedule import legality, pluto, seeds
from perfkit.schedule.gpu import MOST_GRID_LOOPS, MapBlock, MapGrid
from perfkit.schedule.gpu_dot import contribution, product
from perfkit.schedule.pluto import Options
from perfkit.schedule.shape import coincident_first
from perfkit.schedule.state import State, Transform
from perfkit.schedule.steps import Steps
from perfkit.schedule.transforms import Order

MOST_HOST_LOOPS = 1
"""Loops of launches inside each other; deeper ones run in one program instead."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Lanes per axis, powers of two: ``line`` of a lone loop, ``rows`` and ``columns`` of two.

    ``depth`` is for the loop over which a product of matrices sums.
    """

    line: int = 256
    rows: int = 64
    columns: int = 64
    depth: int = 32


@dataclass(frozen=True)
class Mapped:
    """A mapped state, and the script that leads to it."""

    state: State
    steps: tuple[Transform, ...]


def map_to_gpu(
    state: State, analysis: Analysis | None = None, blocks: Blocks | None = None
) -> Mapped:
    """The default mapping of a program; it always exists. Raises BudgetExceeded."""
    analysis = analysis or Analysis()
    start = Steps(state, analysis)
    best: tuple[tuple[int, ...], Steps, list[Transform]] | None = None
    for order in _orders(start):
        chooser = _Chooser(order, blocks or Blocks())
        chooser.visit(order.tree, 0)
        if best is None or chooser.cost < best[0]:
            best = (chooser.cost, order, chooser.marks)
    assert best is not None
    _, steps, marks = best
    for mark in marks:
        steps.take(mark)
    return Mapped(steps.state, steps.done)


def _orders(start: Steps) -> Iterator[Steps]:
    """The present order and others; what isl's budget or a step refuses is left out."""
    bases = [start]
    yield start
    for make in (seeds.expanded, seeds.split):
        try:
            made = make(start)
        except (BudgetExceeded, ScheduleError) as error:
            log.get("seeds").info("GPU mapping: %s", error)
            continue
        if made.done:
            bases.append(made)
            yield made
    for base in bases:
        try:
            steps = base.copy()
            found = coincident_first(pluto.schedule(base.dependences, Options("min")))
            steps.take(Order.of(found.tree))
        except (BudgetExceeded, ScheduleError) as error:
            log.get("seeds").info("GPU mapping: %s", error)
            continue
        yield steps


@dataclass
class _Chooser:
    """Walks a tree and collects marks, and what is left to run in order."""

    steps: Steps
    blocks: Blocks
    marks: list[Transform] = field(default_factory=list)
    host: int = 0
    launches: int = 0
    parallel: dict[str, bool] = field(default_factory=dict)
    mapped: dict[str, int] = field(default_factory=dict)  # loop -> 2 in the grid, 1 in lanes

    @property
    def cost(self) -> tuple[int, ...]:
        """Loops in order around the worst statement, twice where they are not even lanes."""
        tree = self.steps.tree
        left = [
            sum(2 - self.mapped.get(loop.name, 0) for loop in enclosing(tree, name))
            for name in statements(tree)
        ]
        return (max(left), self.host, sum(left), self.launches)

    def is_parallel(self, loop: Loop) -> bool:
        if loop.name not in self.parallel:
            self.parallel[loop.name] = legality.is_parallel(
                self.steps.dependences, self.steps.tree, loop.name
            )
        return self.parallel[loop.name]

    # -- the outside ---------------------------------------------------------------------------

    def visit(self, node: Node, host: int) -> None:
        match node:
            case Sequence(children=children):
                for child in children:
                    self.visit(child, host)
            case Loop() if self.is_parallel(node):
                self.grid(node)
            case Loop():
                inner = any(self.is_parallel(loop) for loop in loops(node.body))
                if inner and host < MOST_HOST_LOOPS:
                    self.host = max(self.host, host + 1)
                    self.visit(node.body, host + 1)
                else:
                    self.launches += 1
                    self.inside(node, 1)
            case Leaf():
                self.launches += 1

    def grid(self, outer: Loop) -> None:
        """A nest of parallel loops: programs, with lanes for its innermost two."""
        self.launches += 1
        nest = [outer]
        while len(nest) < MOST_GRID_LOOPS and isinstance(nest[-1].body, Loop):
            if not self.is_parallel(nest[-1].body):
                break
            nest.append(nest[-1].body)
        self.marks.append(MapGrid(*(loop.name for loop in nest)))
        self.mapped |= dict.fromkeys((loop.name for loop in nest), 2)
        if len(nest) == 1 and self.rows(nest[0].body):
            self.inside(nest[0].body, 1)
            return
        if len(nest) == 1:
            self.marks.append(MapBlock(nest[0].name, self.blocks.line))
        else:
            self.marks.append(MapBlock(nest[-2].name, self.blocks.rows))
            self.marks.append(MapBlock(nest[-1].name, self.blocks.columns))
            self.product(nest)

    def product(self, nest: list[Loop]) -> None:
        """Lanes for the loop that a product of matrices sums over."""
        body = nest[-1].body
        for loop in loops(body):
            if isinstance(loop.body, Leaf):
                statement = self.steps.state.scop.statement(loop.body.statement)
                if self.is_product(statement, nest[-2], nest[-1], loop):
                    self.marks.append(MapBlock(loop.name, self.depth(statement)))
                    self.mapped[loop.name] = 1

    def depth(self, statement: Statement) -> int:
        """Fewer for double precision, whose tiles take twice the registers."""
        wide = ITEMSIZE[self.steps.state.scop.array(statement.write.array).dtype] > 4
        return max(2, self.blocks.depth // 2) if wide else self.blocks.depth

    def is_product(self, s: Statement, rows: Loop, columns: Loop, over: Loop) -> bool:
        found = self.steps.dependences.reductions.get(s.name)
        if found is None or found.op != "add" or not self.reduces(over):
            return False
        names = [frozenset(x.expression(s.name).names()) for x in (rows, columns, over)]
        used = [
            frozenset(k for k, n in enumerate(names) for a in _names(f) if a in n)
            for f in product(contribution(s.value, s.write, 0)).factors
        ]
        return frozenset((0, 2)) in used and frozenset((1, 2)) in used

    def reduces(self, loop: Loop) -> bool:
        return legality.reduction_parallel(self.steps.dependences, self.steps.tree, loop.name)

    # -- the inside ----------------------------------------------------------------------------

    def rows(self, body: Node) -> bool:
        """Does every deepest statement have a loop inside that can be lanes?"""
        inside = [loop for loop in loops(body) if self.can_be_lanes(loop)]
        deep = [loop for loop in loops(body) if isinstance(loop.body, Leaf | Sequence)]
        return bool(deep) and all(
            any(set(statements(loop)) <= set(statements(lane)) for lane in inside) for loop in deep
        )

    def can_be_lanes(self, loop: Loop) -> bool:
        if self.is_parallel(loop):
            return True
        return isinstance(loop.body, Leaf) and self.reduces(loop) and self.combines(loop)

    def combines(self, loop: Loop) -> bool:
        found = self.steps.dependences.reductions
        return all(s in found and found[s].op in ("add", "min", "max") for s in statements(loop))

    def inside(self, node: Node, axes: int) -> None:
        """Lanes inside a program, for up to ``axes`` loops around each other."""
        match node:
            case Loop() if axes and self.can_be_lanes(node):
                self.marks.append(MapBlock(node.name, self.blocks.line))
                self.mapped[node.name] = max(1, self.mapped.get(node.name, 0))
                self.inside(node.body, axes - 1)
            case Loop():
                self.inside(node.body, axes)
            case Sequence(children=children):
                for child in children:
                    self.inside(child, axes)


def _names(e: Expr) -> frozenset[str]:
    """The iterators that a value depends on."""
    return frozenset(n for a in loads(e) for i in a.indices for n in i.names())


__all__ = ["Blocks", "Mapped", "map_to_gpu"]
