"""What a change of placement moves: slices, split sizes and bytes, from composing two relations.

``inverse(before) . after`` relates what a rank holds before to where it is wanted after. For one
pair of ranks it is a box on each side, because placements cut dimensions independently. Two ways
lead to a :class:`Transfer`: :func:`compose`, through isl, is the definition; :func:`intersect`
cuts closed-form boxes, takes microseconds, and is the one used at run time. The tests prove them
equal.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import islpy as isl

from perfkit.dsp.placement import Box, Placement, volume
from perfkit.errors import InternalError, PlacementError


@dataclass(frozen=True, slots=True)
class Slice:
    """A box that moves between this rank and ``peer``; indices are local to this rank."""

    peer: int
    box: Box

    @property
    def elements(self) -> int:
        return volume(self.box)


@dataclass(frozen=True)
class Transfer:
    """What ``rank`` sends and receives when a tensor goes from one placement to another.

    ``sends`` and ``receives`` are ordered by peer and leave out empty boxes; the rank's own share
    is among them (peer == rank), and is not counted as sent. Sizes are in elements.
    """

    rank: int
    ranks: int
    sends: tuple[Slice, ...]
    receives: tuple[Slice, ...]

    @cached_property
    def send_splits(self) -> tuple[int, ...]:
        """Elements for each rank, its own share included: an all-to-all's split sizes."""
        return _splits(self.sends, self.ranks)

    @cached_property
    def receive_splits(self) -> tuple[int, ...]:
        """Elements from each rank, its own share included."""
        return _splits(self.receives, self.ranks)

    @cached_property
    def sent(self) -> int:
        """Elements that leave this rank."""
        return sum(self.send_splits) - self.send_splits[self.rank]

    @cached_property
    def received(self) -> int:
        """Elements that arrive from other ranks."""
        return sum(self.receive_splits) - self.receive_splits[self.rank]


def _splits(slices: tuple[Slice, ...], ranks: int) -> tuple[int, ...]:
    counts = [0] * ranks
    for piece in slices:
        counts[piece.peer] += piece.elements
    return tuple(counts)


def _check(before: Placement, after: Placement) -> None:
    if before.shape != after.shape:
        raise PlacementError(
            f"a change of placement keeps the shape; got {before.shape} and {after.shape}"
        )
    if before.mesh != after.mesh:
        raise PlacementError(
            f"a change of placement keeps the mesh; got {before.mesh} and {after.mesh}"
        )


def _is_source(before: Placement, source: int, target: int) -> bool:
    """Whether ``target`` takes its elements from ``source`` where several ranks hold them.

    On the mesh axes that replicate, a rank reads from its own coordinate: a rank that holds an
    element already reads it from itself, and the copies share the sending evenly.
    """
    there, here = before.coordinates(source), before.coordinates(target)
    return all(
        dim is not None or a == b for dim, a, b in zip(before.shards, there, here, strict=True)
    )


# -- the closed form ------------------------------------------------------------------------


def intersect(before: Placement, after: Placement, rank: int) -> Transfer:
    """The transfer of ``rank``, from intersecting closed-form boxes.

    Raises:
        PlacementError: the placements differ in shape or mesh, or the rank does not exist.
    """
    _check(before, after)
    mine_before, mine_after = before.box(rank), after.box(rank)
    sends, receives = [], []
    for peer in range(before.ranks):
        if _is_source(before, rank, peer) and (box := _cut(mine_before, after.box(peer))):
            sends.append(Slice(peer, box))
        if _is_source(before, peer, rank) and (box := _cut(mine_after, before.box(peer))):
            receives.append(Slice(peer, box))
    return Transfer(rank, before.ranks, tuple(sends), tuple(receives))


def _cut(mine: Box, other: Box) -> Box | None:
    """The part of ``mine`` inside ``other``, in indices local to ``mine``; None where empty."""
    box = []
    for (start, stop), (low, high) in zip(mine, other, strict=True):
        first, last = max(start, low), min(stop, high)
        if first >= last:
            return None
        box.append((first - start, last - start))
    return tuple(box)


# -- through isl ----------------------------------------------------------------------------


def compose(before: Placement, after: Placement, rank: int) -> Transfer:
    """The transfer of ``rank``, from composing the two relations with isl: the definition.

    Raises:
        PlacementError: the placements differ in shape or mesh, or the rank does not exist.
    """
    _check(before, after)
    ctx = isl.Context()
    moves = before.relation(ctx).reverse().apply_range(after.relation(ctx))
    for axis, dim in enumerate(before.shards):
        if dim is None:  # as in _is_source
            moves = moves.equate(isl.dim_type.in_, axis, isl.dim_type.out, axis)
    here = before.coordinates(rank)
    leaving, arriving = moves, moves
    for axis, at in enumerate(here):
        leaving = _fix(leaving, isl.dim_type.in_, axis, at)
        arriving = _fix(arriving, isl.dim_type.out, axis, at)
    sends, receives = [], []
    for peer in range(before.ranks):
        to, origin = leaving, arriving
        for axis, at in enumerate(before.coordinates(peer)):
            to = _fix(to, isl.dim_type.out, axis, at)
            origin = _fix(origin, isl.dim_type.in_, axis, at)
        if not to.is_empty():
            sends.append(Slice(peer, _box_of(to.domain(), len(before.mesh))))
        if not origin.is_empty():
            receives.append(Slice(peer, _box_of(origin.range(), len(before.mesh))))
    return Transfer(rank, before.ranks, tuple(sends), tuple(receives))


def _fix(relation: isl.Map, kind: isl.dim_type, axis: int, at: int) -> isl.Map:
    return relation.fix_val(kind, axis, isl.Val.int_from_si(relation.get_ctx(), at))


def _box_of(points: isl.Set, skip: int) -> Box:
    """The box that a set is, without its first ``skip`` (fixed) dimensions."""
    points = points.project_out(isl.dim_type.set, 0, skip)
    count = points.dim(isl.dim_type.set)
    bounds = [
        (points.dim_min_val(d).to_python(), points.dim_max_val(d).to_python() + 1)
        for d in range(count)
    ]
    names = ", ".join(f"l{d}" for d in range(count))
    limits = " and ".join(f"{low} <= l{d} < {high}" for d, (low, high) in enumerate(bounds))
    box = isl.Set.read_from_str(points.get_ctx(), f"{{ [{names}] : {limits or 'true'} }}")
    if not points.is_equal(box):  # so that its cardinality is the volume of its bounds
        raise InternalError(f"the elements that move between two ranks are not a box: {bounds}")
    return tuple(bounds)


# -- remembered transfers -------------------------------------------------------------------


class Transfers:
    """The transfers of one rank, computed once for each pair of placements.

    Holds at most ``limit`` of them and drops the least recently used; not shared by threads.
    """

    def __init__(self, rank: int, limit: int = 256) -> None:
        if limit < 1:
            raise PlacementError(f"a cache of {limit} transfers cannot hold one")
        self.rank = rank
        self.limit = limit
        self._known: OrderedDict[tuple[Placement, Placement], Transfer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, before: Placement, after: Placement) -> Transfer:
        """The transfer from ``before`` to ``after``, in closed form."""
        key = (before, after)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = intersect(before, after, self.rank)
            if len(self._known) > self.limit:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return found
