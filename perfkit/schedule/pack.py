"""Packing: the part of an operand that a tile reads is copied into a small contiguous buffer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from perfkit.errors import ScriptError, TransformError
from perfkit.ir.affine import Affine, FloorDiv
from perfkit.ir.expr import Access, Expr, Load, loads, map_accesses, transform, walk
from perfkit.ir.isl import Polyhedra, budget_errors, domain_of
from perfkit.ir.scop import Array, Scop, Statement
from perfkit.ir.tree import (
    Leaf,
    Loop,
    Node,
    Sequence,
    enclosing,
    find_loop,
    fresh_name,
    statements,
)
from perfkit.schedule.copies import before, unused_name
from perfkit.schedule.expand import affine_bounds
from perfkit.schedule.flow import is_transfer
from perfkit.schedule.state import State


@dataclass(frozen=True)
class _Dimension:
    """One dimension of the operand: its index within the tile, or None where the tile fixes it.

    ``tile`` is the position of the tile loop among the loops around; index and tile loop fit as
    ``index + offset in [size * tile, size * tile + size)``.
    """

    size: int
    offset: int
    tile: int


@dataclass(frozen=True)
class Pack:
    """Copy what a tile reads through one access into a buffer, at the start of a tile loop's body.

    Before (tiles of 64 x 128)::

        for k_t for j_t for i for j for k  C[i,j] = C[i,j] + A[i,k]*B[k,j]

    After ``Pack(S, "B[k, j]", j_t)``::

        for k_t for j_t {
          for x0 for x1  B_pack[k_t, j_t, x0 - 64*k_t, x1 - 128*j_t] = B[x0, x1];
          for i for j for k  C[i,j] = C[i,j] + A[i,k] * B_pack[k_t, j_t, k mod 64, j mod 128]
        }

    Every index must be tiled by a loop at or outside the named one, or be fixed by one. The leading
    dimensions only keep tiles apart: the generator drops them and declares the buffer inside the
    loop. Without a loop, ``Pack(S, "B[k, j]")``, the whole operand is copied tile by tile before
    the nest, once for all threads and all ``i``::

        for k_t for j_t for x0 for x1  B_pack[k_t, j_t, x0 - 64*k_t, x1 - 128*j_t] = B[x0, x1];
        for k_t for j_t for i for j for k  C[i,j] = C[i,j] + A[i,k] * B_pack[...]

    ``order`` permutes the dimensions of the buffer: ``(1, 0)`` stores it transposed. ``panel=6``
    cuts the last of them into panels of 6, one after the other, as the rows of a register tile read
    them: ``Pack(S, "A[i, k]", k_t, (1, 0), panel=6)`` stores ``A[i, k]`` at ``[i div 6, k, i mod
    6]``. With
    ``factors``, scalar arguments that the statement combines with the operand first, as in
    ``(alpha * A[i,k]) * B[k,j]``, are applied while copying. An operand that the region writes is
    packed too, where the values that arrive stay the same.
    """

    statement: str
    access: str
    loop: str = ""
    order: tuple[int, ...] = ()
    factors: bool = False
    panel: int = 0

    def __str__(self) -> str:
        order = f", ({', '.join(map(str, self.order))},)" if self.order else ""
        factors = ", factors=True" if self.factors else ""
        loop = f", {self.loop}" if self.loop else ""
        order = order and f", order={self.order}" if not self.loop else order
        panel = f", panel={self.panel}" if self.panel else ""
        return f'Pack({self.statement}, "{self.access}"{loop}{order}{factors}{panel})'

    def apply(self, state: State) -> State:
        """Raises TransformError where the access is not tiled; legality is proved afterwards."""
        scop, tree = state.scop, state.tree
        statement, access = self._find(scop)
        around = enclosing(tree, statement.name)
        if self.loop and self.loop not in [loop.name for loop in around]:
            find_loop(tree, self.loop)
            raise TransformError(f"{self}: {self.loop} is not around {self.statement}")
        if self.loop:
            outer = around[: [loop.name for loop in around].index(self.loop) + 1]
        else:
            outer = self._tiling(statement, access, around)
        dimensions = [self._dimension(statement, index, outer) for index in access.indices]
        kept = [d for d, found in enumerate(dimensions) if found is not None]
        order = self.order or tuple(range(len(kept)))
        if sorted(order) != list(range(len(kept))):
            raise TransformError(f"{self}: the order must permute the {len(kept)} tiled dimensions")
        last = dimensions[kept[order[-1]]] if kept else None
        if self.panel and (last is None or self.panel < 1 or last.size % self.panel):
            raise TransformError(f"{self}: a tile's last dimension is no multiple of {self.panel}")
        return self._rewrite(state, statement, access, outer, dimensions, [kept[d] for d in order])

    def _find(self, scop: Scop) -> tuple[Statement, Access]:
        known = [s.name for s in scop.statements]
        if self.statement not in known:
            raise ScriptError(f"{self}: no statement is named {self.statement!r}")
        statement = scop.statement(self.statement)
        for access in statement.reads:
            if str(access) == self.access and access != statement.write:
                return statement, access
        reads = ", ".join(dict.fromkeys(map(str, statement.reads)))
        raise TransformError(f"{self}: {self.statement} reads {reads or 'nothing'}")

    def _tiling(
        self, statement: Statement, access: Access, around: tuple[Loop, ...]
    ) -> tuple[Loop, ...]:
        """The loops that tile the indices; for an index without, the loop that fixes it."""
        wanted: set[int] = set()
        tiled = False
        for index in access.indices:
            exact = [
                k for k, loop in enumerate(around)
                if (index - loop.expression(statement.name)).is_constant
            ]  # fmt: skip
            others = tuple(loop for k, loop in enumerate(around) if k not in exact)
            try:
                found = self._dimension(statement, index, others)
            except TransformError:
                if not exact:
                    raise
                wanted.add(exact[0])
            else:
                if found is not None:
                    wanted.add(around.index(others[found.tile]))
                    tiled = True
        if not tiled:
            raise TransformError(f"{self}: no loop tiles an index of {self.access}")
        return tuple(around[k] for k in sorted(wanted))

    def operand(self, statement: Statement, access: Access) -> Expr:
        """The load, or the largest expression around it that only adds scalar arguments."""
        if self.factors:
            for e in walk(statement.value):  # parents first
                if is_transfer(e) and loads(e) == (access,) and e.dtype == statement.value.dtype:
                    return e
        return next(e for e in walk(statement.value) if isinstance(e, Load) and e.access == access)

    def _dimension(
        self, statement: Statement, index: Affine, outer: tuple[Loop, ...]
    ) -> _Dimension | None:
        best: _Dimension | None = None
        for position, loop in enumerate(outer):
            expr = loop.expression(statement.name)
            if (index - expr).is_constant:
                return None
            if expr.terms or expr.const or len(expr.divs) != 1 or expr.divs[0][1] != 1:
                continue
            div: FloorDiv = expr.divs[0][0]
            gap = div.inner - index
            if gap.is_constant and (best is None or div.divisor < best.size):
                best = _Dimension(div.divisor, gap.const, position)
        if best is None:
            raise TransformError(
                f"{self}: no loop at or outside {self.loop} tiles the index {index}"
            )
        return best

    def _extents(self, sizes: list[int]) -> list[int]:
        """The extents within a tile: its sizes, the last one cut into panels."""
        if not self.panel:
            return sizes
        return [sizes[-1] // self.panel, *sizes[:-1], self.panel]

    def _inside(self, places: list[tuple[Affine, Affine, int]]) -> list[Affine]:
        """The indices within a tile, from (index, tile, size) of each dimension."""
        if not self.panel:
            return [index - tile * size for index, tile, size in places]
        *others, (index, tile, size) = places
        panel = index.floordiv(self.panel)
        first = panel - tile * (size // self.panel)
        return [first, *(i - t * s for i, t, s in others), index - panel * self.panel]

    def _rewrite(
        self,
        state: State,
        statement: Statement,
        access: Access,
        outer: tuple[Loop, ...],
        dimensions: list[_Dimension | None],
        kept: list[int],
    ) -> State:
        scop = state.scop
        old = scop.array(access.array)
        poly = Polyhedra(scop)
        taken = set(scop.parameters) | {a.name for a in scop.arrays}
        tiles = [unused_name(f"{loop.name}_x", taken) for loop in outer]
        elements = [unused_name(f"x{d}", taken | set(tiles)) for d in range(old.rank)]
        iterators = (*tiles, *elements)
        values = [loop.expression(statement.name) for loop in outer]
        with budget_errors():
            image = poly.domains[statement.name].apply(
                poly.map(
                    f"{{ {statement.name}[{', '.join(statement.iterators)}] -> "
                    f"[{', '.join(map(str, [*values, *access.indices]))}] }}"
                )
            )
            domain = domain_of(image.coalesce(), iterators)
            limits = [
                affine_bounds(
                    poly.domains[statement.name].apply(
                        poly.map(
                            f"{{ {statement.name}[{', '.join(statement.iterators)}] -> [{v}] }}"
                        )
                    )
                )
                for v in values
            ]
        if any(limit is None for limit in limits):
            raise TransformError(f"{self}: the tile loops have no affine bounds")
        lows = [limit[0] for limit in limits if limit is not None]
        extents = [limit[1] - limit[0] + 1 for limit in limits if limit is not None]
        found = {d: dim for d, dim in enumerate(dimensions) if dim is not None}
        buffer = Array(
            unused_name(f"{old.name}_pack", taken),
            old.dtype,
            (*extents, *map(Affine.constant, self._extents([found[d].size for d in kept]))),
            local=True,
        )
        inside = self._inside(
            [
                (
                    Affine.variable(elements[d]) + found[d].offset,
                    Affine.variable(tiles[found[d].tile]),
                    found[d].size,
                )
                for d in kept
            ]
        )
        tile_index = [Affine.variable(t) - low for t, low in zip(tiles, lows, strict=True)]
        source = Access(old.name, tuple(Affine.variable(x) for x in elements))
        write = Access(buffer.name, (*tile_index, *inside))
        name = unused_name(f"{buffer.name}_copy", {s.name for s in scop.statements})
        operand = self.operand(statement, access)
        value = map_accesses(operand, lambda _: source)
        copy = Statement(name, domain, write, value, statement.location,
                         f"{buffer.name} = {old.name}")  # fmt: skip
        moved = Access(
            buffer.name,
            (
                *(value - low for value, low in zip(values, lows, strict=True)),
                *self._inside(
                    [
                        (index, index.floordiv(found[d].size), found[d].size)
                        for d in kept
                        for index in [access.indices[d] + found[d].offset]
                    ]
                ),
            ),
        )
        changed = replace(
            statement,
            value=transform(
                statement.value, lambda e: Load(operand.dtype, moved) if e == operand else e
            ),
        )
        everything = tuple(changed if s.name == statement.name else s for s in scop.statements)
        fixed = [d for d in range(old.rank) if d not in kept]
        own = [(elements[d], Affine.variable(elements[d])) for d in (*fixed, *kept)]
        if self.panel:  # panel by panel; within one in the order in which the operand lies
            last = kept[-1]
            whole = Affine.variable(elements[last]) + found[last].offset
            own = [own[k] for k in range(len(fixed))]
            own.append((f"{elements[last]}_p", whole.floordiv(self.panel)))
            own += [(elements[d], Affine.variable(elements[d])) for d in sorted(kept)]
        if not self.loop:
            own = [*((t, Affine.variable(t)) for t in tiles), *own]
        nest: Node = Leaf(name)
        for iterator, expression in reversed(own):
            loop_name = fresh_name(state.tree, f"{name}_{iterator}")
            nest = Loop(loop_name, ((name, expression),), nest)
        if self.loop:
            variables = map(Affine.variable, tiles)
            around = dict(zip((loop.name for loop in outer), variables, strict=True))
            tree = _with_copy(state.tree, outer, around, name, nest)
        else:
            tree = _before_nest(state.tree, statement.name, nest)
        # Where nobody writes the array, copying it first is the same program; dependences are
        # computed from that order. Otherwise the present one says which values are copied.
        order = tree if old.name in scop.written else before(scop.tree, copy)
        packed = replace(
            scop, arrays=(*scop.arrays, buffer), statements=(*everything, copy), tree=order
        )
        return replace(state, scop=packed, tree=tree)


def _before_nest(tree: Node, statement: str, nest: Node) -> Node:
    """Put ``nest`` before the outermost loop around a statement."""
    if not isinstance(tree, Sequence):
        return Sequence((nest, tree))
    children: list[Node] = []
    for child in tree.children:
        children += [nest, child] if statement in statements(child) else [child]
    return Sequence(tuple(children))


def _with_copy(
    node: Node, outer: tuple[Loop, ...], values: dict[str, Affine], name: str, nest: Node
) -> Node:
    """Put ``nest`` first into the body of the innermost loop of ``outer``."""
    match node:
        case Loop() if node.name in values:
            schedule = (*node.schedule, (name, values[node.name]))
            if node.name == outer[-1].name:
                rest = node.body.children if isinstance(node.body, Sequence) else (node.body,)
                body: Node = Sequence((nest, *rest))
            else:
                body = _with_copy(node.body, outer, values, name, nest)
            return replace(node, schedule=schedule, body=body)
        case Sequence():
            return Sequence(
                tuple(
                    _with_copy(child, outer, values, name, nest)
                    if isinstance(child, Loop) and child.name in values
                    else child
                    for child in node.children
                )
            )
        case _:
            return node


__all__ = ["Pack"]
