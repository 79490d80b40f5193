"""Keeping tiles in registers: accumulators, and temporaries that never reach memory.

Where every access that a piece of a program makes to an array is to one and the same tile, that
tile is loaded before, stored after, and lives in a register tensor in between. It is what makes an
accumulator of ``C[i, j] += ...`` out of memory traffic, and a tensor out of a scalar temporary that
was expanded to one element per iteration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import islpy as isl

from perfkit.codegen.names import Names
from perfkit.codegen.nodes import constraints_above, constraints_below
from perfkit.codegen.triton_nodes import Held, If, Node, Repeat, Run, Tile, runs, walk
from perfkit.codegen.triton_space import Sets, Space
from perfkit.ir.affine import Affine, Constraint, Piece
from perfkit.ir.expr import ITEMSIZE, Access

LARGEST_TILE = 128 << 10
"""Bytes of a tile; more would not stay in registers."""

Dies = Callable[[str, tuple[str, ...]], bool]
"""Is an array dead outside one iteration of the given variables, and used nowhere else?"""

_Key = tuple[tuple[Affine, ...], tuple[tuple[str, Affine], ...]]


@dataclass
class Holder:
    """Finds tiles in the program of one kernel, outermost first."""

    space: Space
    dies: Dies
    names: Names
    counts: Counter[str]

    @staticmethod
    def hold(
        space: Space, nodes: tuple[Node, ...], dies: Dies, names: Names
    ) -> tuple[Node, ...]:
        counts = Counter(run.statement for run in runs(nodes))
        known = space.poly.context.intersect(space.sets.of(space.outside()))
        outer = tuple(space.variable(w) for w in (*space.launch.host, *space.launch.grid))
        return Holder(space, dies, names, counts)._block(nodes, outer, known, frozenset())

    def _block(
        self, nodes: tuple[Node, ...], around: tuple[str, ...], known: isl.Set, held: frozenset[str]
    ) -> tuple[Node, ...]:
        tiles = self._tiles(nodes, around, known, held)
        held |= {t.array for t in tiles}
        body: list[Node] = []
        for node in nodes:
            single = [] if len(nodes) == 1 else self._tiles((node,), around, known, held)
            inside = held | {t.array for t in single}
            if isinstance(node, Repeat):
                made: Node = Repeat(
                    node.name, node.lower, node.upper, node.step,
                    self._block(
                        node.body, (*around, node.name), known.intersect(self._range(node)), inside
                    ),
                    node.marks,
                )  # fmt: skip
            elif isinstance(node, If):
                condition = self.space.sets.of(node.condition)
                made = If(
                    node.condition,
                    self._block(node.body, around, known.intersect(condition), inside),
                )
            else:
                made = node
            body.append(self._guarded(single, (made,)) if single else made)
        return (self._guarded(tiles, tuple(body)),) if tiles else tuple(body)

    def _guarded(self, tiles: list[Tile], body: tuple[Node, ...]) -> Node:
        """The tiles around ``body``, under the scalar conditions without which nothing runs."""
        masks = [m for t in tiles for m in (t.load, t.store) if m is not None and len(m) == 1]
        common = tuple(
            c
            for c in dict.fromkeys(c for m in masks for c in m[0])
            if not c.expr.names() & set(self.space.sizes) and self._implied(c, body)
        )
        if not common:
            return Held(tuple(tiles), body)

        def rest(mask: tuple[Piece, ...] | None) -> tuple[Piece, ...] | None:
            return mask and tuple(tuple(c for c in piece if c not in common) for piece in mask)

        freed = tuple(replace(t, load=rest(t.load), store=rest(t.store)) for t in tiles)
        return If((common,), (Held(freed, body),))

    def _implied(self, c: Constraint, body: tuple[Node, ...]) -> bool:
        """Does every statement inside run only where the condition holds?"""
        allowed = self.space.sets.of(((c,),))
        return all(
            self.space.placed[r.statement].instances.is_subset(allowed) for r in runs(body)
        )

    def _range(self, node: Repeat) -> isl.Set:
        value = Affine.variable(node.name)
        result = None
        for pieces in (constraints_above(value, node.lower), constraints_below(value, node.upper)):
            part = self.space.sets.of(pieces)
            result = part if result is None else result.intersect(part)
        assert result is not None
        return result

    def _tiles(
        self, nodes: tuple[Node, ...], around: tuple[str, ...], known: isl.Set, held: frozenset[str]
    ) -> list[Tile]:
        placed = self.space.placed
        written = dict.fromkeys(placed[r.statement].write.array for r in runs(nodes))
        found = (self._tile(a, nodes, around, known) for a in written if a not in held)
        return [t for t in found if t is not None]

    def _tile(
        self, array: str, nodes: tuple[Node, ...], around: tuple[str, ...], known: isl.Set
    ) -> Tile | None:
        placed = self.space.placed
        users = [
            r for r in runs(nodes) if any(a.array == array for a in placed[r.statement].accesses)
        ]
        looped = any(isinstance(n, Repeat) for n in walk(nodes))
        if len(users) < 2 and not looped:
            return None
        inside = Counter(r.statement for r in users)
        if any(self.counts[s] != n for s, n in inside.items()):
            return None  # other parts of the statement run elsewhere
        key = self._only_tile(array, users)
        if key is None or not self._fixed(key, nodes) or not self._fits(array, key, users):
            return None
        kept = (*around, *(lane for lane, _ in key[1]))
        reads = self._union(kept, [r for r in users if array in _reads(self.space, r)])
        writes = self._union(
            kept, [r for r in users if placed[r.statement].write.array == array]
        )
        dead = self.dies(array, around)
        lanes = tuple(lane for lane, _ in key[1])
        sure = known.intersect(self.space.box(lanes))
        load = store = None
        if not dead:
            store = Sets.pieces(writes, sure)
            if not self._covered(array, nodes, users, kept, reads):
                load = Sets.pieces(reads, sure)
        return Tile(
            self.names.fresh(f"{array}_tile"), array, key[0], lanes, key[1], load, store,
            reads.union(writes),
        )  # fmt: skip

    def _only_tile(self, array: str, users: list[Run]) -> _Key | None:
        """What all accesses to the array have in common: their indices, lane by lane."""
        keys: set[_Key] = set()
        for run in users:
            p = self.space.placed[run.statement]
            for access in p.accesses:
                if access.array == array:
                    keys.add(self._resolved(run, access))
        return keys.pop() if len(keys) == 1 else None

    def _resolved(self, run: Run, access: Access) -> _Key:
        values = dict(run.values)
        names = {n for i in access.indices for n in i.names()}
        lanes = [
            (lane.name, self._block_value(lane.name, values))
            for lane in self.space.placed[run.statement].lanes
            if lane.name in names
        ]
        return tuple(i.substitute(values) for i in access.indices), tuple(lanes)

    def _block_value(self, lane: str, values: dict[str, Affine]) -> Affine:
        block = self.space.blocks[lane]
        return values.get(block, Affine.variable(block))

    def _fixed(self, key: _Key, nodes: tuple[Node, ...]) -> bool:
        """Is it the same tile in every iteration of the loops inside, one element per lane?"""
        indices, lanes = key
        names = {n for i in indices for n in i.names()} | {
            n for _, block in lanes for n in block.names()
        }
        if any(isinstance(n, Repeat) and n.name in names for n in walk(nodes)):
            return False
        wide = {lane for lane, _ in lanes}
        return all(any(i.names() & wide == {lane} for i in indices) for lane in wide)

    def _fits(self, array: str, key: _Key, users: list[Run]) -> bool:
        size = ITEMSIZE[self.space.scop.array(array).dtype]
        for lane, _ in key[1]:
            size *= self.space.sizes[lane]
        if size > LARGEST_TILE:
            return False
        own = {lane for lane, _ in key[1]}
        for run in users:
            p = self.space.placed[run.statement]
            spread = {lane.name for lane in p.lanes} - own - set(p.reduced)
            if p.write.array == array and spread:
                return False  # one element, several lanes: which of them runs depends on the mask
        return True

    def _union(self, kept: tuple[str, ...], users: list[Run]) -> isl.Set:
        result = self.space.sets.read((), "false")
        for name in dict.fromkeys(r.statement for r in users):
            part = self.space.sets.only(self.space.placed[name].instances, kept)
            result = result.union(part)
        return result.coalesce()

    def _covered(
        self, array: str, nodes: tuple[Node, ...], users: list[Run], kept: tuple[str, ...],
        reads: isl.Set,
    ) -> bool:  # fmt: skip
        """Does the first access write all that is read later?"""
        first = users[0]
        if array in _reads(self.space, first):
            return False
        if any(first in runs(n.body) for n in walk(nodes) if isinstance(n, Repeat)):
            return False
        return reads.is_subset(self._union(kept, [first]))


def _reads(space: Space, run: Run) -> set[str]:
    return {a.array for a in space.placed[run.statement].accesses[1:]}


__all__ = ["LARGEST_TILE", "Dies", "Holder"]
