"""Blocked factorizations: index-set splitting where a loop's block ends.

A factorization sums, step ``k`` by step ``k``, into all that lies behind row and column ``k``::

    for k { for i  L[i,k] = A[i,k]/A[k,k];  for i for j  A[i,j] -= L[i,k]*A[k,j] }

No two loops of it can be interchanged freely, because step ``k`` needs what the steps before it
left. But most instances of a block of steps touch only what lies *behind* the block, and those can
wait until the block is done: they are a contraction, with a sum as long as the block. So every
statement is split by which of its loops are still inside the block of ``k``, and each class of
parts gets a nest of its own::

    for k_t {
      <both inside>                       the diagonal block
      <rows behind>  <columns behind>     the panels
      <both behind>                       the rest: for i for j for k A[i,j] -= L[i,k]*A[k,j]
    }

This is the right-looking blocked form of LU and Cholesky (Golub and Van Loan, "Matrix
Computations", 3.2.11), found from the dependences alone: nothing is assumed of the program, and
where an order of the classes is not legal there is no such seed. Every sum keeps its order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product

from perfkit.analysis.footprint import WRITE, walks
from perfkit.errors import TransformError
from perfkit.ir.affine import Affine
from perfkit.ir.isl import budget_errors
from perfkit.ir.tree import (
    Leaf,
    Loop,
    Node,
    Sequence,
    enclosing,
    find_loop,
    loops,
    restrict,
    statements,
)
from perfkit.schedule.base import chain, loop_names, rename_clashes, replace_node, tidy
from perfkit.schedule.blocking import (
    Sizes,
    attempt_pack,
    block_nest,
    lanes_of,
    nests,
    parallelize,
    permute,
    roles_of,
)
from perfkit.schedule.legality import is_parallel
from perfkit.schedule.locality import Locality
from perfkit.schedule.loops import Interchange
from perfkit.schedule.marks import Jam, Vectorize
from perfkit.schedule.pack import Pack
from perfkit.schedule.shape import vectorize
from perfkit.schedule.split import Split
from perfkit.schedule.steps import Steps
from perfkit.schedule.structure import Distribute, Order
from perfkit.schedule.tiling import StripMine, Tile, tile_name

BLOCK = 64
"""Steps of a block: long enough for a register tile's sum, short beside the matrix."""

LANE_TILE = 96
"""Columns that a thread takes at a time behind the block; their operand stays in the L2 cache."""

MOST_PARTS = 12
"""Parts beyond which computing their dependences takes too long."""

Class = frozenset[str]
"""What is behind the block: values that loops run over, by the names in the program."""


def panels(base: Steps, sizes: Sizes, block: int = BLOCK) -> Steps:
    """``base``, whose tree is an order with loops to block, with every such loop blocked.

    Raises TransformError where no loop sums behind itself or no order of the classes is legal.
    """
    steps = base.copy()
    names = [loop.name for loop in _carriers(steps)]
    if not names:
        raise TransformError("panels: no loop sums into what lies behind it")
    inside = {s for name in names for s in statements(find_loop(steps.tree, name))}
    for outer in nests(steps.state):
        if not inside & set(statements(find_loop(steps.tree, outer))):
            block_nest(steps, outer, sizes, True)
    small: list[str] = []
    for name in names:
        for outer, group in _cut(steps, name, block):
            _schedule(steps, outer, sizes)
            if not group:
                small.append(outer)
    parallelize(steps, small)
    return steps


# -- cutting ---------------------------------------------------------------------------------


def _carriers(steps: Steps) -> list[Loop]:
    """Outermost sequential loops along which a statement, two loops further in, sums."""
    scop, tree = steps.state.scop, steps.tree
    found: list[Loop] = []
    for loop in tree.children if isinstance(tree, Sequence) else (tree,):
        if not isinstance(loop, Loop) or is_parallel(steps.dependences, tree, loop.name):
            continue
        sums = [
            w for w in walks(scop, tree)
            if w.loop == loop.name and w.position == WRITE and w.is_invariant
        ]  # fmt: skip
        if any(len(enclosing(tree, w.statement)) > 2 for w in sums):
            found.append(loop)
    return found


def _cut(steps: Steps, name: str, block: int) -> list[tuple[str, Class]]:
    """Split what is below a loop by class; returns the outermost loops of the classes' nests."""
    classes: dict[str, Class] = {}
    for statement in statements(find_loop(steps.tree, name)):
        classes |= _parts(steps, statement, name, block)
    if len(classes) > MOST_PARTS:
        raise TransformError(f"panels: more than {MOST_PARTS} parts")
    tree = tidy(steps.tree)
    loop = find_loop(tree, name)
    if len(set(classes.values())) < 2:
        raise TransformError(f"panels: nothing lies behind a block of {name}")
    taken = loop_names(steps.tree)
    for order in _orders(set(classes.values())):
        found: list[Loop] = []
        used = set(taken)
        for group in order:
            part = restrict(loop, frozenset(s for s, c in classes.items() if c == group))
            assert part is not None
            own = frozenset() if found else loop_names(part)  # the first part keeps its names
            part = rename_clashes(part, frozenset(used - own))
            assert isinstance(part, Loop)
            used |= loop_names(part)
            found.append(part)
        outer = Loop(
            tile_name(name, used),
            tuple((s, e.floordiv(block)) for s, e in loop.schedule),
            Sequence(tuple(found)),
        )
        if steps.attempt(Order.of(replace_node(tree, loop, outer))):
            return [(nest.name, group) for nest, group in zip(found, order, strict=True)]
    raise TransformError(f"panels: the parts behind the blocks of {name} cannot wait")


def _orders(classes: set[Class]) -> Iterator[tuple[Class, ...]]:
    """Classes with fewer loops behind the block first; those with equally many in any order."""
    by_size: dict[int, list[Class]] = {}
    for c in sorted(classes, key=sorted):
        by_size.setdefault(len(c), []).append(c)
    for choice in product(*(permutations(by_size[n]) for n in sorted(by_size))):
        yield tuple(c for group in choice for c in group)


def _parts(steps: Steps, statement: str, outer: str, block: int) -> dict[str, Class]:
    """Split a statement at the end of the block, along each of its loops; its parts' classes."""
    around = enclosing(steps.tree, statement)
    own = next(k for k, loop in enumerate(around) if loop.name == outer)
    start = around[own].expression(statement)
    parts: dict[str, Class] = {statement: frozenset()}
    for loop in around[own + 1 :]:
        value = loop.expression(statement)
        if (value - start).is_constant:
            continue
        end = start.floordiv(block) * block + block
        for part, behind in list(parts.items()):
            known = {s.name for s in steps.state.scop.statements}
            step = Split(part, f"{value} < {end}")
            if steps.attempt(step):
                (other,) = {s.name for s in steps.state.scop.statements} - known
                parts[other] = behind | {str(value)}
            elif _all_behind(steps, part, value - end):
                parts[part] = behind | {str(value)}
    return parts


def _all_behind(steps: Steps, statement: str, distance: Affine) -> bool:
    """Whether ``distance`` is nowhere negative."""
    poly = steps.analysis.polyhedra(steps.state.scop)
    iterators = ", ".join(steps.state.scop.statement(statement).iterators)
    with budget_errors():
        inside = poly.set(f"{{ {statement}[{iterators}] : {distance} < 0 }}")
        return bool(poly.domains[statement].intersect(inside).is_empty())


# -- one class -------------------------------------------------------------------------------


def _schedule(steps: Steps, outer: str, sizes: Sizes) -> None:
    """Order, tile and mark the nest of one class."""
    for name in _separated(steps, outer):
        nest = chain(steps.tree, name)
        if isinstance(nest[-1].body, Leaf) and len(nest) > 2:
            if not _contraction(steps, name, sizes) and not _panel(steps, name, sizes):
                _imperfect(steps, name, sizes)
        else:
            _imperfect(steps, name, sizes)


def _separated(steps: Steps, outer: str) -> tuple[str, ...]:
    """The loop, distributed into perfect nests of one statement each where that is legal."""
    trial = steps.copy()
    known = loop_names(trial.tree)
    for name in reversed([loop.name for loop in loops(find_loop(trial.tree, outer))]):
        body = find_loop(trial.tree, name).body
        if isinstance(body, Sequence) and not trial.attempt(Distribute(name)):
            return (outer,)
    steps.reset(trial)
    new = loop_names(steps.tree) - known
    top = [outer]
    for name in new:
        if all(loop.name not in new | {outer} for loop in _outside(steps.tree, name)):
            top.append(name)
    return tuple(sorted(top))


def _outside(tree: Node, name: str) -> tuple[Loop, ...]:
    inside = statements(find_loop(tree, name))
    around = enclosing(tree, inside[0])
    return around[: [loop.name for loop in around].index(name)]


def _contraction(steps: Steps, outer: str, sizes: Sizes) -> bool:
    """Rows and lanes in parallel, the sum innermost: register tiles under cache tiles.

    The columns are shared out. Where the operand along them would have to be gathered it is packed,
    a tile of columns at a time; else its rows are short enough to stay in the cache as they are,
    and proving a copy of what the program overwrites later costs more than it brings.
    """
    start = steps.copy()
    nest = tuple(loop.name for loop in chain(steps.tree, outer))
    roles = roles_of(steps, nest)
    if len(roles.sums) != 1 or roles.others or not (roles.lane and roles.jam):
        return False
    width = lanes_of(steps, nest[-1], sizes.simd_bytes) * sizes.vectors
    lane, jam, total = roles.lane, roles.jam, roles.sums[0]
    if not permute(steps, nest, (lane, jam, total)):
        return False
    if not all(is_parallel(steps.dependences, steps.tree, x) for x in (lane, jam)):
        steps.reset(start)
        return False
    taken = loop_names(steps.tree)
    columns = tile_name(lane, taken)
    rows = sizes.jam_tile // sizes.rows * sizes.rows
    if not steps.attempt(Tile.of([(lane, LANE_TILE), (jam, rows)])):
        steps.reset(start)
        return False
    name = statements(find_loop(steps.tree, total))[0]
    statement = steps.state.scop.statement(name)
    for access in dict.fromkeys(statement.reads):
        moved = {w.loop: w for w in walks(steps.state.scop, steps.tree)
                 if w.statement == name and w.position != WRITE
                 and statement.reads[w.position] == access}  # fmt: skip
        if access == statement.write or not moved[jam].is_invariant:
            continue
        if moved[lane].steps[-1] == 0:
            attempt_pack(steps, Pack(name, str(access), columns, (1, 0), panel=width))
    done = steps.attempt(
        StripMine(lane, width), Interchange(lane, jam), Vectorize(lane, width),
        Jam(jam, sizes.rows),
    )  # fmt: skip
    if not done:
        steps.reset(start)
    return done


def _panel(steps: Steps, outer: str, sizes: Sizes) -> bool:
    """Rows in order, columns in lanes, the sum innermost; strips of columns on threads."""
    start = steps.copy()
    nest = tuple(loop.name for loop in chain(steps.tree, outer))
    roles = roles_of(steps, nest)
    if len(roles.sums) != 1 or roles.lane is None or len(nest) != 3:
        return False
    rows = next(n for n in nest if n not in (roles.lane, roles.sums[0]))
    width = lanes_of(steps, nest[-1], sizes.simd_bytes)
    done = permute(steps, nest, (roles.lane, rows, roles.sums[0])) and steps.attempt(
        StripMine(roles.lane, LANE_TILE),
        Interchange(roles.lane, rows),
        Vectorize(roles.lane, width * 4),
    )
    if not done:
        steps.reset(start)
    return done


def _imperfect(steps: Steps, outer: str, sizes: Sizes) -> None:
    """A parallel loop outside where there is one, and lanes in the innermost loops."""
    nest = [loop.name for loop in chain(steps.tree, outer)]
    for name in nest[1:]:
        trial = steps.copy()
        if trial.attempt(Interchange(outer, name)) and is_parallel(
            trial.dependences, trial.tree, name
        ):
            steps.reset(trial)
            break
    inside = [x for x in _below(steps, nest) if not loops(x.body)]
    locality = Locality.of(steps.state.scop, steps.tree)
    for loop in inside:
        vectorize(steps, loop, sizes.simd_bytes, locality)


def _below(steps: Steps, nest: list[str]) -> list[Loop]:
    known = {s for n in nest for s in statements(find_loop(steps.tree, n))}
    return [x for x in loops(steps.tree) if set(statements(x)) <= known]


__all__ = ["BLOCK", "panels"]
