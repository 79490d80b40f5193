"""Mappings to the GPU for any program: parallel loops go to the grid, the rest keeps its order.

Every order of :mod:`perfkit.schedule.gpu_orders` is mapped with blocks of several shapes
(:func:`plans`), for a cost model to choose from. :func:`map_to_gpu` chooses by structure alone: the
order whose worst statement has the fewest loops left that must run one after the other; then fewer
host loops, then no waves, then fewer launches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from perfkit.schedule.gpu_dot import contribution, products
from perfkit.schedule.gpu_orders import orders
from perfkit.schedule.seeds import Seed
from perfkit.schedule.state import State
from perfkit.schedule.steps import Steps

MOST_ROWS = 16
"""Lanes of a parallel loop around one that also has lanes."""

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
    Blocks(256, 128, 128, 64),
    Blocks(256, 128, 256, 64),
    Blocks(64, 16, 128, 16),
    Blocks(512, 8, 128, 16),
    Blocks(2048, 4, 256, 32),
    Blocks(32, 16, 16, 16),
)
"""Blocks worth trying: squares for products, short wide ones for streams, small ones for waves."""

STYLES = ("tile", "line", "inner", "both")
"""Which loops of a nest get lanes: the innermost two parallel ones (or, of one, a loop inside it
that reduces), the innermost parallel one, a loop inside, or the last of both kinds."""


@dataclass(frozen=True)
class Plan:
    """An order and the marks that would map it, not yet proved; ``tree`` has the marks."""

    name: str
    order: Steps
    marks: tuple[TreeTransform, ...]
    tree: Node
    cost: tuple[int, ...]

    @property
    def order_name(self) -> str:
        """The name without that of the marks."""
        return self.name.partition(":")[0]

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
        for plan in mappings(name, order, shapes):
            key = (order.state.scop, plan.tree)  # two orders may be the same with other names
            if key not in seen:
                seen.add(key)
                found.append(plan)
    return found


def mappings(
    name: str, order: Steps, shapes: Sequence[Blocks] = SHAPES, chunks: frozenset[str] = frozenset()
) -> Iterator[Plan]:
    """Different marks for one order; the loops ``chunks`` are programs, never lanes."""
    nature = _Nature(order)
    seen: set[tuple[TreeTransform, ...]] = set()
    for style, scans, blocks in product(STYLES, (False, True), shapes):
        chooser = _Chooser(order, nature, blocks, scans, style, chunks)
        chooser.visit(order.tree, 0)
        marks = tuple(chooser.marks)
        if marks in seen:
            continue
        seen.add(marks)
        tree = marked(order.tree, marks)
        label = f"{name}:{'scans-' if scans else ''}{style}-{blocks}"
        left, host, total, launches = chooser.cost
        # of equals, waves last: their neighbours are far apart in memory
        cost = (left, host, total, "-waves" in name, launches)
        yield Plan(label, order, marks, tree, cost)


@dataclass
class _Chooser:
    """Walks a tree and collects marks, and what is left to run in order."""

    steps: Steps
    nature: _Nature
    blocks: Blocks
    scans: bool
    style: str
    chunks: frozenset[str]
    marks: list[TreeTransform] = field(default_factory=list)
    host: int = 0
    launches: int = 0
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
        return self.nature.is_parallel(loop)

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
        inner, laned = nest[-1].body, [x for x in nest if x.name not in self.chunks]
        rows = (len(laned) < 2 or self.style != "tile") and self.rows(inner)
        if not laned or (rows and self.style != "line"):
            if laned and self.style == "both":
                self.marks.append(MapBlock(laned[-1].name, min(self.blocks.rows, MOST_ROWS)))
            self.inside(inner, 1)
        elif len(laned) == 1 or self.style == "line":
            self.marks.append(MapBlock(laned[-1].name, self.blocks.line))
        else:
            self.marks.append(MapBlock(laned[-2].name, self.blocks.rows))
            self.marks.append(MapBlock(laned[-1].name, self.blocks.columns))
            self.product(laned)

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
        nature = self.nature
        if found is None or found.op != "add" or not nature.reduces(over):
            return False
        if nature.walks(s.name, over):
            return False
        names = [frozenset(x.expression(s.name).names()) for x in (rows, columns, over)]
        beside = set()
        for term in products(contribution(s.value, s.write, 0)):
            used = [
                frozenset(k for k, n in enumerate(names) for a in _names(f) if a in n)
                for f in term.factors
            ]
            if not {frozenset((0, 2)), frozenset((1, 2))} <= set(used):
                return False
            scale = tuple(f for f, u in zip(term.factors, used, strict=True) if 2 not in u)
            beside.add((scale, term.negative))
        return len(beside) == 1

    # -- the inside ----------------------------------------------------------------------------

    def rows(self, body: Node) -> bool:
        """Does every deepest statement have a loop inside that can be lanes?"""
        inside = [loop for loop in loops(body) if self.can_be_lanes(loop)]
        deep = [loop for loop in loops(body) if isinstance(loop.body, Leaf | ir_tree.Sequence)]
        return bool(deep) and all(
            any(set(statements(loop)) <= set(statements(lane)) for lane in inside) for loop in deep
        )

    def can_be_lanes(self, loop: Loop) -> bool:
        nature = self.nature
        if nature.is_parallel(loop) or (self.scans and nature.is_scan(loop)):
            return True
        return nature.reduces(loop) and nature.combines(loop)

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


class _Nature:
    """What the loops of one order carry, asked once."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.deps, self.tree = steps.dependences, steps.tree
        self._known: dict[tuple[str, str], bool] = {}

    def _ask(self, question: str, loop: Loop, answer: Callable[[Loop], bool]) -> bool:
        key = (question, loop.name)
        if key not in self._known:
            self._known[key] = answer(loop)
        return self._known[key]

    def is_parallel(self, loop: Loop) -> bool:
        return self._ask(
            "parallel", loop, lambda x: legality.is_parallel(self.deps, self.tree, x.name)
        )

    def reduces(self, loop: Loop) -> bool:
        return self._ask(
            "reduces", loop, lambda x: legality.reduction_parallel(self.deps, self.tree, x.name)
        )

    def is_scan(self, loop: Loop) -> bool:
        """Is all that the loop carries, if anything, a recurrence that lanes can scan?"""
        return self._ask("scan", loop, self._is_scan)

    def _is_scan(self, loop: Loop) -> bool:
        deps, tree = self.deps, self.tree
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
        return self._ask("combines", loop, self._combines)

    def _combines(self, loop: Loop) -> bool:
        if loops(loop.body):
            return False
        found = self.deps.reductions
        carried = legality.carried_reductions(self.deps, self.tree, loop.name)
        return all(
            found[s].op in ("add", "min", "max") and not self.walks(s, loop) for s in carried
        )

    def walks(self, name: str, loop: Loop) -> bool:
        """Does a statement write another element when the loop advances?"""
        statement = self.steps.state.scop.statement(name)
        around = enclosing(self.tree, name)
        values = tuple(x.expression(name) for x in around)
        place = next(k for k, x in enumerate(around) if x.name == loop.name)
        move = iterator_moves(statement.iterators, values)[place]
        if any(step.denominator != 1 for step in move.values()):
            return True
        later = {n: Affine.variable(n) + int(step) for n, step in move.items()}
        return statement.write.substitute(later) != statement.write


def _names(e: Expr) -> frozenset[str]:
    """The iterators that a value depends on."""
    return frozenset(n for a in loads(e) for i in a.indices for n in i.names())


__all__ = ["SHAPES", "STYLES", "Blocks", "Plan", "map_to_gpu", "mappings", "plans"]
