"""Mappings to the GPU for any program: parallel loops go to the grid, the rest keeps its order.

Every order of :mod:`perfkit.schedule.gpu_orders` is mapped with blocks of several shapes
(:func:`plans`), for a cost model to choose from. :func:`map_to_gpu` chooses by structure alone: the
order whose worst statement has the fewest loops left that must run one after the other; then fewer
host loops, then no waves, then fewer launches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

from perfkit.analysis.dependences import Analysis
from perfkit.analysis.footprint import iterator_moves
from perfkit.ir import tree as ir_tree
from perfkit.ir.affine import Affine
from perfkit.ir.expr import FLOATS, ITEMSIZE, Expr, loads
from perfkit.ir.scop import Scop, Statement
from perfkit.ir.tree import Leaf, Loop, Node, enclosing, loops, statements
from perfkit.schedule import legality
from perfkit.schedule.base import TreeTransform
from perfkit.schedule.gpu import MOST_GRID_LOOPS, MapBlock, MapGrid, marked
from perfkit.schedule.gpu_dot import contribution
from perfkit.schedule.gpu_dot import product as factors_of
from perfkit.schedule.gpu_orders import orders
from perfkit.schedule.seeds import Seed
from perfkit.schedule.state import State
from perfkit.schedule.steps import Steps

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

    def __str__(self) -> str:
        return f"{self.line}/{self.rows}x{self.columns}x{self.depth}"


SHAPES = (
    Blocks(),
    Blocks(512, 32, 64, 32),
    Blocks(128, 32, 32, 32),
    Blocks(1024, 128, 64, 32),
    Blocks(256, 128, 128, 32),
    Blocks(64, 16, 128, 16),
    Blocks(32, 16, 16, 16),
)
"""Blocks worth trying: squares for products, short wide ones for streams, small ones for waves."""


@dataclass(frozen=True)
class Plan:
    """An order and the marks that would map it, not yet proved; ``tree`` has the marks."""

    name: str
    order: Steps
    marks: tuple[TreeTransform, ...]
    tree: Node
    cost: tuple[int, ...]

    def seed(self) -> Seed:
        """The proved schedule. Raises ScheduleError where a mark is refused."""
        steps = self.order.copy()
        for mark in self.marks:
            steps.take(mark)
        return Seed(self.name, steps.done, steps.state)


def map_to_gpu(
    state: State, analysis: Analysis | None = None, blocks: Blocks | None = None
) -> Seed:
    """The mapping that leaves the least to run in order. Raises BudgetExceeded."""
    found = plans(state, analysis or Analysis(), (blocks or Blocks(),))
    return min(found, key=lambda plan: plan.cost).seed()


def plans(
    state: State, analysis: Analysis, shapes: Sequence[Blocks] = SHAPES
) -> list[Plan]:
    """Different mappings of a program, one at least. Raises BudgetExceeded."""
    found: list[Plan] = []
    seen: set[tuple[Scop, Node]] = set()
    for name, order in orders(Steps(state, analysis)):
        for blocks, scans in product(shapes, (False, True)):
            chooser = _Chooser(order, blocks, scans)
            chooser.visit(order.tree, 0)
            tree = marked(order.tree, chooser.marks)
            key = (order.state.scop, tree)
            if key not in seen:
                seen.add(key)
                label = f"{name}{'-scans' if scans else ''}-{blocks}"
                left, host, total, launches = chooser.cost
                # of equals, waves last: their neighbours are far apart in memory
                cost = (left, host, total, "-waves" in name, launches)
                found.append(Plan(label, order, tuple(chooser.marks), tree, cost))
    return found


@dataclass
class _Chooser:
    """Walks a tree and collects marks, and what is left to run in order."""

    steps: Steps
    blocks: Blocks
    scans: bool
    marks: list[TreeTransform] = field(default_factory=list)
    host: int = 0
    launches: int = 0
    parallel: dict[str, bool] = field(default_factory=dict)
    mapped: dict[str, int] = field(default_factory=dict)  # loop -> 2 in the grid, 1 in lanes

    @property
    def cost(self) -> tuple[int, int, int, int]:
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
            case ir_tree.Sequence(children=children):
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
        if found is None or found.op != "add" or not self.reduces(over) or self.walks(s.name, over):
            return False
        names = [frozenset(x.expression(s.name).names()) for x in (rows, columns, over)]
        used = [
            frozenset(k for k, n in enumerate(names) for a in _names(f) if a in n)
            for f in factors_of(contribution(s.value, s.write, 0)).factors
        ]
        return frozenset((0, 2)) in used and frozenset((1, 2)) in used

    def reduces(self, loop: Loop) -> bool:
        return legality.reduction_parallel(self.steps.dependences, self.steps.tree, loop.name)

    # -- the inside ----------------------------------------------------------------------------

    def rows(self, body: Node) -> bool:
        """Does every deepest statement have a loop inside that can be lanes?"""
        inside = [loop for loop in loops(body) if self.can_be_lanes(loop)]
        deep = [loop for loop in loops(body) if isinstance(loop.body, Leaf | ir_tree.Sequence)]
        return bool(deep) and all(
            any(set(statements(loop)) <= set(statements(lane)) for lane in inside) for loop in deep
        )

    def can_be_lanes(self, loop: Loop) -> bool:
        if self.is_parallel(loop) or (self.scans and self.is_scan(loop)):
            return True
        return self.reduces(loop) and self.combines(loop)

    def is_scan(self, loop: Loop) -> bool:
        """Is all that the loop carries, if anything, a recurrence that lanes can scan?"""
        deps, tree = self.steps.dependences, self.steps.tree
        if self.steps.state.fp != "reassociate" and self._floats(loop):
            return False
        lanes = marked(tree, [MapBlock(loop.name, 2)])
        return legality.mark_violation(deps, lanes) is None and not legality.carried_reductions(
            deps, tree, loop.name
        )

    def _floats(self, loop: Loop) -> bool:
        scop = self.steps.state.scop
        written = (scop.statement(s).write.array for s in statements(loop))
        return any(scop.array(a).dtype in FLOATS for a in written)

    def combines(self, loop: Loop) -> bool:
        """Are the reductions that the loop carries sums, minima or maxima, and not nested?"""
        if loops(loop.body):
            return False
        found = self.steps.dependences.reductions
        carried = legality.carried_reductions(self.steps.dependences, self.steps.tree, loop.name)
        return all(
            found[s].op in ("add", "min", "max") and not self.walks(s, loop) for s in carried
        )

    def walks(self, name: str, loop: Loop) -> bool:
        """Does a statement write another element when the loop advances?"""
        statement = self.steps.state.scop.statement(name)
        around = enclosing(self.steps.tree, name)
        values = tuple(x.expression(name) for x in around)
        place = next(k for k, x in enumerate(around) if x.name == loop.name)
        move = iterator_moves(statement.iterators, values)[place]
        if any(step.denominator != 1 for step in move.values()):
            return True
        later = {n: Affine.variable(n) + int(step) for n, step in move.items()}
        return statement.write.substitute(later) != statement.write

    def inside(self, node: Node, axes: int) -> None:
        """Lanes inside a program, for up to ``axes`` loops around each other."""
        match node:
            case Loop() if axes and self.can_be_lanes(node):
                self.marks.append(MapBlock(node.name, self.blocks.line))
                self.mapped[node.name] = max(1, self.mapped.get(node.name, 0))
                self.inside(node.body, axes - 1)
            case Loop():
                self.inside(node.body, axes)
            case ir_tree.Sequence(children=children):
                for child in children:
                    self.inside(child, axes)


def _names(e: Expr) -> frozenset[str]:
    """The iterators that a value depends on."""
    return frozenset(n for a in loads(e) for i in a.indices for n in i.names())


__all__ = ["SHAPES", "Blocks", "Plan", "map_to_gpu", "plans"]
