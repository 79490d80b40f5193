"""Transfers between placements: the closed form, the isl composition, and brute force agree."""

from __future__ import annotations

import itertools
from collections import Counter

import islpy as isl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.dsp.placement import Placement
from perfkit.dsp.transfers import Transfers, compose, intersect
from perfkit.errors import PlacementError


@st.composite
def changes(draw: st.DrawFn, largest: int = 8, extent: int = 4) -> tuple[Placement, Placement]:
    shape = tuple(draw(st.lists(st.integers(0, largest), min_size=1, max_size=3)))
    mesh = tuple(draw(st.lists(st.integers(1, extent), min_size=1, max_size=2)))
    dims = st.none() | st.integers(0, len(shape) - 1)
    before, after = (Placement(shape, mesh, tuple(draw(dims) for _ in mesh)) for _ in range(2))
    return before, after


@given(changes())
@settings(max_examples=150, deadline=None)
def test_the_closed_form_is_the_composition(change: tuple[Placement, Placement]) -> None:
    before, after = change
    for rank in range(before.ranks):
        assert intersect(before, after, rank) == compose(before, after, rank)


@pytest.mark.parametrize("ranks", [8, 32, 128])
@pytest.mark.parametrize("size", [(17, 51), (128, 9216), (64, 4096), (3, 200)])
def test_the_closed_form_is_the_composition_at_model_sizes(
    ranks: int, size: tuple[int, int]
) -> None:
    before = Placement.sharded((2, *size, 1152), ranks, 1)
    after = Placement.sharded((2, *size, 1152), ranks, 2)
    for rank in {0, ranks // 3, ranks - 1}:
        assert intersect(before, after, rank) == compose(before, after, rank)


@given(changes(largest=5, extent=3))
@settings(max_examples=60, deadline=None)
def test_slices_move_every_element_to_its_place(change: tuple[Placement, Placement]) -> None:
    """Each rank ends with exactly what it should hold, sent once, from where it was."""
    before, after = change
    transfers = [intersect(before, after, rank) for rank in range(before.ranks)]
    for target in range(after.ranks):
        arrived: Counter[tuple[int, ...]] = Counter()
        origin = after.box(target)
        for received in transfers[target].receives:
            (sent,) = [s for s in transfers[received.peer].sends if s.peer == target]
            source = before.box(received.peer)
            here = [
                range(a + o[0], b + o[0]) for (a, b), o in zip(received.box, origin, strict=True)
            ]
            there = [range(a + o[0], b + o[0]) for (a, b), o in zip(sent.box, source, strict=True)]
            assert here == there, "both sides name the same elements in the same order"
            arrived.update(itertools.product(*here))
        assert arrived == Counter(itertools.product(*(range(a, b) for a, b in origin)))


@given(changes(largest=5, extent=3))
@settings(max_examples=40, deadline=None)
def test_volume_is_the_cardinality_of_the_off_rank_part(
    change: tuple[Placement, Placement],
) -> None:
    before, after = change
    ctx = isl.Context()
    moves = before.relation(ctx).reverse().apply_range(after.relation(ctx))
    for axis, dim in enumerate(before.shards):
        if dim is None:
            moves = moves.equate(isl.dim_type.in_, axis, isl.dim_type.out, axis)
    stay = moves
    for axis in range(len(before.mesh)):
        stay = stay.equate(isl.dim_type.in_, axis, isl.dim_type.out, axis)
    cardinality = moves.subtract(stay).wrap().count_val().to_python()
    transfers = [intersect(before, after, rank) for rank in range(before.ranks)]
    assert sum(t.sent for t in transfers) == cardinality
    assert sum(t.received for t in transfers) == cardinality


@pytest.mark.parametrize("ranks", [2, 4, 8, 16, 64, 128])
def test_even_switches_have_the_closed_form_of_the_paper(ranks: int) -> None:
    """M / N * (N - 1) / N sent per rank (arXiv 2403.10266, section 4)."""
    shape = (1, 256, 512, 3)
    elements = 256 * 512 * 3
    for rank in (0, ranks - 1):
        moved = intersect(
            Placement.sharded(shape, ranks, 1), Placement.sharded(shape, ranks, 2), rank
        )
        assert moved.sent == moved.received == elements // ranks * (ranks - 1) // ranks
        assert len(set(moved.send_splits)) == 1


def test_gather_receives_what_others_hold_and_split_moves_nothing() -> None:
    whole, shard = Placement.replicated((10, 3), 4), Placement.sharded((10, 3), 4, 0)
    assert [intersect(shard, whole, r).received for r in range(4)] == [21, 21, 24, 24]
    assert [intersect(whole, shard, r).sent for r in range(4)] == [0, 0, 0, 0]


def test_replicas_on_another_axis_read_from_their_own_row() -> None:
    before = Placement((8, 6), (2, 2), (None, 0))
    after = Placement((8, 6), (2, 2), (None, 1))
    assert intersect(before, after, 3).send_splits == (0, 0, 12, 12)


def test_both_sides_must_be_one_tensor_on_one_mesh() -> None:
    with pytest.raises(PlacementError, match="keeps the shape"):
        intersect(Placement.sharded((4,), 2, 0), Placement.sharded((5,), 2, 0), 0)
    with pytest.raises(PlacementError, match="keeps the mesh"):
        compose(Placement.sharded((4,), 2, 0), Placement.sharded((4,), 4, 0), 0)


def test_remembered_transfers_are_computed_once_and_bounded() -> None:
    known = Transfers(rank=1, limit=2)
    places = [Placement.sharded((4, n), 2, 0) for n in range(4)]
    wholes = [Placement.replicated((4, n), 2) for n in range(4)]
    first = known.get(places[0], wholes[0])
    assert known.get(places[0], wholes[0]) is first
    assert first == intersect(places[0], wholes[0], 1)
    for place, whole in zip(places[1:], wholes[1:], strict=True):
        known.get(place, whole)
    assert len(known) == 2
    assert known.get(places[0], wholes[0]) is not first
    with pytest.raises(PlacementError, match="cannot hold"):
        Transfers(rank=0, limit=0)
