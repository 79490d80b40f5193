"""Cache and register blocking of the perfect nests of a tree, as ordinary script steps.

For every innermost perfect nest the loops get roles from the accesses alone:

* a *lane* loop, parallel, along which the write and most reads are contiguous: SIMD;
* *sum* loops, along which the write does not move: innermost and sequential, so that the written
  elements stay in registers while the sum runs (the order of every sum is kept);
* a *jam* loop, parallel, along which some operand is reused: unrolled and jammed, so that one load
  feeds several rows.

With a sum loop the order becomes ``... jam, lane, sums`` (a BLIS-like register tile, after Van Zee
and van de Geijn, TOMS 2015), under cache tiles when the nest is deep enough; without one the lane
loop goes innermost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil

from perfkit.analysis.dependences import Analysis
from perfkit.analysis.footprint import WRITE, Walk, accesses, walks
from perfkit.errors import BudgetExceeded, ScheduleError
from perfkit.ir.expr import ITEMSIZE, Load
from perfkit.ir.scop import Statement
from perfkit.ir.tree import Leaf, Loop, Node, Sequence, enclosing, find_loop, statements
from perfkit.schedule.base import chain, loop_names, tidy
from perfkit.schedule.flow import preserves_flow
from perfkit.schedule.legality import check_final, is_parallel, reduction_parallel
from perfkit.schedule.loops import Interchange
from perfkit.schedule.marks import Jam, Parallelize, Vectorize
from perfkit.schedule.pack import Pack
from perfkit.schedule.relayout import Relayout
from perfkit.schedule.state import State, Transform
from perfkit.schedule.steps import Steps
from perfkit.schedule.structure import Distribute
from perfkit.schedule.tiling import Tile, tile_name

CACHE_SHARE = 0.56
"""Part of the second cache that a copied block of the left operand takes up."""


UNEVEN = 4
"""Tiles per thread where they do not have the same work."""


@dataclass(frozen=True)
class Sizes:
    """Block sizes: SIMD bytes, register rows, vectors per row, and cache tiles (iterations).

    6 x 2 vectors leave room in 16 registers for two operand vectors and a broadcast. ``streams``
    rows are summed at once where nothing runs in lanes. Where the operand along the lanes is packed
    once for all, into panels as wide as the register tile, a tile has as many rows as the second
    ``cache`` holds and ``threads`` can share evenly; ``panel_jam_tile`` where the ``values`` of the
    parameters are not known.
    """

    simd_bytes: int = 32
    cache: int = 512 << 10
    threads: int = 1
    values: Mapping[str, int] = field(default_factory=dict)
    rows: int = 6
    vectors: int = 2
    streams: int = 8
    jam_tile: int = 96
    lane_tile: int = 96
    sum_tile: int = 256
    panel_jam_tile: int = 48


@dataclass(frozen=True)
class Roles:
    """The loops of one nest, by what they do."""

    lane: str | None
    jam: str | None
    sums: tuple[str, ...]
    others: tuple[str, ...]


def block(
    state: State, analysis: Analysis, sizes: Sizes, tiled: bool = True, relayout: bool = True
) -> tuple[tuple[Transform, ...], State]:
    """Steps that block every innermost nest of ``state`` that profits, and their result."""
    builder = Steps(state.with_tree(tidy(state.tree)), analysis)
    _distribute(builder)
    if relayout:
        _relayout(builder)
    for outer in nests(builder.state):
        block_nest(builder, outer, sizes, tiled)
    parallelize(builder)
    return builder.done, builder.state


def nests(state: State) -> tuple[str, ...]:
    """The outermost loop of every perfect nest that ends in statements."""
    found: list[str] = []

    def visit(node: Node) -> None:
        match node:
            case Loop():
                last = chain(node, node.name)[-1].body
                leaves = last.children if isinstance(last, Sequence) else (last,)
                if all(isinstance(n, Leaf) for n in leaves):
                    found.append(node.name)
                else:
                    visit(last)
            case Sequence(children=children):
                for child in children:
                    visit(child)

    visit(state.tree)
    return tuple(found)


def _distribute(builder: Steps) -> None:
    """Make perfect nests inside sequential loops: a parallel loop over several loops is split.

    The scheduler keeps what lies in one cycle of dependences together even where, within one
    iteration of the loop that carries the cycle, the parts could run one after the other.
    """

    def visit(node: Node, inside: bool) -> str | None:
        """The first loop to split, or None."""
        match node:
            case Loop():
                alone = _parallel(builder, node.name)
                several = isinstance(node.body, Sequence) and any(
                    isinstance(c, Loop) for c in node.body.children
                )
                if inside and alone and several and node.name not in refused:
                    return node.name
                return visit(node.body, inside or not alone)
            case Sequence(children=children):
                return next((n for c in children if (n := visit(c, inside)) is not None), None)
            case _:
                return None

    refused: set[str] = set()
    while (name := visit(builder.tree, False)) is not None:
        refused.add(name)
        builder.attempt(Distribute(name))


def block_nest(builder: Steps, outer: str, sizes: Sizes, tiled: bool) -> None:
    nest = tuple(loop.name for loop in chain(builder.state.tree, outer))
    roles = roles_of(builder, nest)
    width = lanes_of(builder, nest[-1], sizes.simd_bytes)
    order = (*roles.others, *_present(roles.jam), *_present(roles.lane), *roles.sums)
    if not roles.sums:
        order = (*roles.others, *_present(roles.jam), *_present(roles.lane))
    if not permute(builder, nest, order):
        _vectorize_innermost(builder, nest, width)
        return
    if tiled and roles.sums and roles.jam and roles.lane:
        contraction = (roles.jam, roles.lane, roles.sums[-1])
        if order[-3:] == contraction:
            start = builder.copy()
            rows = panel_rows(builder, roles.jam, width, sizes)
            panels = (rows, width * sizes.vectors, sizes.sum_tile)
            if not _tile_and_pack(builder, contraction, panels, whole=True):
                builder.reset(start)
                tiles = (sizes.jam_tile, sizes.lane_tile, sizes.sum_tile)
                _tile_and_pack(builder, contraction, tiles, whole=False)
    if not roles.lane and roles.sums and _unit_sum(builder, roles.sums[-1]):
        builder.attempt(Vectorize(roles.sums[-1], width * 4))
    if roles.lane and roles.sums:
        vectors = sizes.vectors if roles.jam else 3 * sizes.vectors
        builder.attempt(Vectorize(roles.lane, width * vectors))
    elif roles.lane:
        builder.attempt(Vectorize(roles.lane, width))
    if roles.jam and roles.sums:
        builder.attempt(Jam(roles.jam, sizes.rows if roles.lane else sizes.streams))


def panel_rows(builder: Steps, loop: str, width: int, sizes: Sizes) -> int:
    """Rows of a tile whose part of the left operand stays in the second cache.

    Each tile of rows streams the whole right operand from further away, so few tiles are better
    than many; that leaves a part of the cache to the panels. The tiles are of one size, as many as
    the threads can share; more where they do not have the same work.
    """
    inside = statements(find_loop(builder.tree, loop))
    scop = builder.state.scop
    trip = builder.trips(loop, sizes.values)
    if trip is None:
        return sizes.panel_jam_tile
    bytes_per_row = sizes.sum_tile * sizes.simd_bytes // width
    most = max(sizes.rows, int(CACHE_SHARE * sizes.cache) // bytes_per_row)
    if all(_is_box(scop.statement(n)) for n in inside):
        tiles = sizes.threads * max(1, ceil(trip / (sizes.threads * most)))
    else:
        tiles = max(UNEVEN * sizes.threads, ceil(trip / most))
    return max(1, ceil(trip / (tiles * sizes.rows))) * sizes.rows


def _is_box(statement: Statement) -> bool:
    """Whether no bound of an iterator depends on another iterator."""
    own = set(statement.iterators)
    return all(
        len(own & c.expr.names()) <= 1 for piece in statement.domain.pieces for c in piece
    )


def _tile_and_pack(
    builder: Steps, nest: tuple[str, str, str], sizes: tuple[int, int, int], whole: bool
) -> bool:
    """Cache tiles for a contraction with loops (rows, lanes, sum), and buffers for its operands.

    The tile loops take the order of BLIS: rows, sum, lanes. The operand along the lanes gets
    contiguous rows: all of it before the nest (``whole``), or its tile again for each tile of rows;
    the one along the rows is copied only when scalar factors can be applied to it on the way. (What
    is copied once pays for one factor per element, what stays in place for one per product.)
    Returns whether the operand along the lanes was packed.
    """
    rows, lanes, total = nest
    extents = dict(zip(nest, sizes, strict=True))
    taken = loop_names(builder.tree)
    tiles = dict(zip(nest, (tile_name(n, taken) for n in nest), strict=True))
    if not builder.attempt(Tile.of(extents.items())):
        return False
    inside = statements(find_loop(builder.tree, rows))
    if len(inside) != 1 or not builder.attempt(Interchange(tiles[lanes], tiles[total])):
        return False
    statement = builder.state.scop.statement(inside[0])
    moves = [w for w in walks(builder.state.scop, builder.tree) if w.statement == inside[0]]
    done = False
    for position, access in accesses(statement):
        if position == WRITE or access == statement.write:
            continue
        along = {w.loop: w for w in moves if w.position == position}
        if along[total].is_invariant or along[lanes].is_invariant == along[rows].is_invariant:
            continue
        if along[lanes].is_invariant:
            step = Pack(statement.name, str(access), tiles[total], factors=True)
            if not isinstance(step.operand(statement, access), Load):
                attempt_pack(builder, step)
        else:
            steps = along[lanes].steps
            order = () if steps[-1] else tuple(reversed(range(len(steps))))
            loop = "" if whole else tiles[lanes]
            step = Pack(statement.name, str(access), loop, order, factors=True)
            done |= attempt_pack(builder, step)
    return done


def attempt_pack(builder: Steps, step: Pack) -> bool:
    """Take the step if it is provably legal, and run the copy in lanes where it is contiguous."""
    before = builder.copy()
    if not builder.attempt(step):
        return False
    state = builder.state
    source = before.state.scop.statement(step.statement).reads
    written = {a.array for a in source if str(a) == step.access} & state.scop.written
    if written and not _proved(builder):
        builder.reset(before)
        return False
    copy = state.scop.statements[-1]
    if not step.order:
        width = 32 // ITEMSIZE[state.scop.array(copy.write.array).dtype]
        builder.attempt(Vectorize(enclosing(state.tree, copy.name)[-1].name, width))
    return True


def _proved(builder: Steps) -> bool:
    """A copy of something that the region writes: do the right values still arrive?"""
    try:
        check_final(builder.analysis, builder.state)
        preserves_flow(
            builder.state.original, builder.state, builder.analysis.max_operations
        )
    except (BudgetExceeded, ScheduleError):
        return False
    return True


def _present(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)


def _vectorize_innermost(builder: Steps, nest: tuple[str, ...], width: int) -> None:
    if not any(find_loop(builder.state.tree, n).mark("vector") for n in nest):
        innermost = chain(builder.state.tree, nest[0])[-1].name
        if _parallel(builder, innermost):
            builder.attempt(Vectorize(innermost, width))


def roles_of(builder: Steps, nest: tuple[str, ...]) -> Roles:
    """Decide from strides; parallelism is asked in the present order of the loops."""
    tree = builder.state.tree
    inside = set(statements(find_loop(tree, nest[0])))
    found = [w for w in walks(builder.state.scop, tree) if w.statement in inside]
    by_loop = {n: [w for w in found if w.loop == n] for n in nest}
    writes = {n: [w for w in by_loop[n] if w.position == WRITE] for n in nest}
    sums = tuple(n for n in nest if writes[n] and all(w.is_invariant for w in writes[n]))
    free = [n for n in nest if n not in sums and _parallel(builder, n)]
    lane = min(
        (n for n in free if all(w.is_unit or w.is_invariant for w in writes[n])),
        key=lambda n: (_penalty(by_loop[n]), nest.index(n) != len(nest) - 1),
        default=None,
    )
    if lane is not None and _penalty(by_loop[lane]) > len(by_loop[lane]) // 2:
        lane = None
    if lane is not None and any(not w.is_unit for w in writes[lane]):
        lane = None
    jam = None
    if sums:
        # The loop whose jammed copies share the most loads.
        choices = [n for n in free if n != lane]
        jam = max(
            choices,
            key=lambda n: (sum(w.is_invariant for w in by_loop[n]), nest.index(n)),
            default=None,
        )
    others = tuple(n for n in nest if n not in (lane, jam) and n not in sums)
    if not sums:
        others = tuple(n for n in nest if n not in (lane, jam))
    return Roles(lane, jam, sums, others)


def _unit_sum(builder: Steps, loop: str) -> bool:
    """A sum that may be reordered and whose operands are contiguous: lanes of partial sums."""
    inside = set(statements(find_loop(builder.tree, loop)))
    moves = [
        w for w in walks(builder.state.scop, builder.tree)
        if w.loop == loop and w.statement in inside and w.position != WRITE
    ]  # fmt: skip
    reorderable = reduction_parallel(builder.dependences, builder.tree, loop)
    return reorderable and not _penalty(moves)


def _penalty(moves: Iterable[Walk]) -> int:
    """Accesses that a SIMD loop would have to gather."""
    return sum(not (w.is_unit or w.is_invariant) for w in moves)


def permute(builder: Steps, nest: tuple[str, ...], order: tuple[str, ...]) -> bool:
    """Reorder a nest by interchanges: all of them, or none."""
    if sorted(nest) != sorted(order):
        return False
    current = list(nest)
    steps: list[Transform] = []
    for k, wanted in enumerate(order):
        place = current.index(wanted)
        if place != k:
            steps.append(Interchange(current[k], wanted))
            current[k], current[place] = current[place], current[k]
    return not steps or builder.attempt(*steps)


def lanes_of(builder: Steps, loop: str, simd_bytes: int) -> int:
    scop = builder.state.scop
    names = set(statements(find_loop(builder.state.tree, loop)))
    sizes = [ITEMSIZE[scop.array(s.write.array).dtype] for s in scop.statements if s.name in names]
    return max(2, simd_bytes // max(sizes))


def _relayout(builder: Steps) -> None:
    """Copy read-only operands whose rows a contraction would have to gather."""
    state = builder.state
    scop = state.scop
    wanted: dict[tuple[str, str], None] = {}
    for outer in nests(state):
        nest = tuple(loop.name for loop in chain(state.tree, outer))
        if len(nest) < 3:
            continue  # the copy would cost as much as the nest itself
        roles = roles_of(builder, nest)
        if not roles.sums or roles.lane is None:
            continue
        for name in statements(find_loop(state.tree, outer)):
            statement = scop.statement(name)
            for walk in walks(scop, state.tree):
                if walk.statement != name or walk.loop != roles.lane or walk.position == WRITE:
                    continue
                array = scop.array(walk.array)
                if walk.is_unit or walk.is_invariant or array.rank != 2:
                    continue
                if walk.array in scop.written or walk.steps[1] != 0 or abs(walk.steps[0]) != 1:
                    continue
                wanted[walk.array, str(statement.reads[walk.position])] = None
    for name, access in wanted:
        builder.attempt(Relayout(name, (1, 0), access))


def _parallel(builder: Steps, loop: str) -> bool:
    return is_parallel(builder.dependences, builder.tree, loop)


def _shareable(builder: Steps, loop: str) -> bool:
    """Parallel, or carrying nothing but reductions that may be reordered."""
    if not builder.analysis.parallel_reductions:
        return _parallel(builder, loop)
    return reduction_parallel(builder.dependences, builder.tree, loop)


def parallelize(builder: Steps, skip: Collection[str] = ()) -> None:
    """Mark the outermost parallel loop of every nest, from the top; not at or below ``skip``."""

    def visit(node: Node) -> None:
        match node:
            case Loop(name=name) if name not in skip:
                if _shareable(builder, name) and builder.attempt(Parallelize(name)):
                    return
                visit(node.body)
            case Sequence(children=children):
                for child in children:
                    visit(child)

    visit(builder.state.tree)


__all__ = [
    "Roles", "Sizes", "attempt_pack", "block", "block_nest", "lanes_of", "nests", "parallelize",
    "permute", "roles_of",
]  # fmt: skip
