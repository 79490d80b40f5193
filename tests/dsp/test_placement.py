"""Placements: balanced shards, and the closed form against the isl relation that defines it."""

from __future__ import annotations

import itertools

import islpy as isl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.dsp.placement import (
    Placement,
    shard_interval,
    shard_length,
    shard_lengths,
    volume,
)
from perfkit.errors import PlacementError


@st.composite
def placements(draw: st.DrawFn, largest: int = 9) -> Placement:
    shape = tuple(draw(st.lists(st.integers(0, largest), min_size=1, max_size=3)))
    mesh = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=2)))
    dims = st.none() | st.integers(0, len(shape) - 1)
    return Placement(shape, mesh, tuple(draw(dims) for _ in mesh))


@given(st.integers(0, 300), st.integers(1, 130))
def test_shards_are_balanced(length: int, ranks: int) -> None:
    lengths = shard_lengths(length, ranks)
    short, longer = divmod(length, ranks)
    assert lengths == (short + 1,) * longer + (short,) * (ranks - longer)
    ends = [shard_interval(length, ranks, rank) for rank in range(ranks)]
    assert [stop - start for start, stop in ends] == list(lengths)
    assert ends[0][0] == 0 and ends[-1][1] == length
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ends))


def test_nine_on_eight_wastes_nothing() -> None:
    assert shard_lengths(9, 8) == (2, 1, 1, 1, 1, 1, 1, 1)


def test_an_axis_shorter_than_the_ranks_leaves_empty_shards() -> None:
    placement = Placement.sharded((2, 3), 4, 0)
    assert [placement.local_shape(r) for r in range(4)] == [(1, 3), (1, 3), (0, 3), (0, 3)]


@given(placements())
@settings(max_examples=60, deadline=None)
def test_boxes_are_the_relation(placement: Placement) -> None:
    relation = placement.relation(isl.Context())
    seen: set[tuple[int, ...]] = set()

    def visit(point: isl.Point) -> None:
        values = tuple(
            point.get_coordinate_val(isl.dim_type.set, k).to_python()
            for k in range(2 * len(placement.shape) + len(placement.mesh))
        )
        assert values not in seen
        seen.add(values)

    relation.wrap().flatten().foreach_point(visit)
    expected = set()
    for rank in range(placement.ranks):
        box = placement.box(rank)
        for element in itertools.product(*(range(start, stop) for start, stop in box)):
            local = tuple(e - start for e, (start, _) in zip(element, box, strict=True))
            expected.add((*element, *placement.coordinates(rank), *local))
    assert seen == expected


@given(placements())
def test_every_element_lives_on_as_many_ranks_as_replicate(placement: Placement) -> None:
    copies = 1
    for dim, extent in zip(placement.shards, placement.mesh, strict=True):
        copies *= extent if dim is None else 1
    held = sum(volume(placement.box(rank)) for rank in range(placement.ranks))
    assert held == copies * volume(tuple((0, n) for n in placement.shape))


@given(placements())
def test_ranks_and_coordinates_are_inverse(placement: Placement) -> None:
    for rank in range(placement.ranks):
        assert placement.rank(placement.coordinates(rank)) == rank


def test_nested_shards_split_what_the_outer_axis_left() -> None:
    placement = Placement((7,), (2, 2), (0, 0))
    assert [placement.box(r)[0] for r in range(4)] == [(0, 2), (2, 4), (4, 6), (6, 7)]


@pytest.mark.parametrize(
    ("shape", "mesh", "shards", "words"),
    [
        ((4,), (), (), "at least one axis"),
        ((4,), (0,), (0,), "at least one axis"),
        ((-1,), (2,), (0,), "negative"),
        ((4,), (2,), (1,), "no dimension 1"),
        ((4,), (2, 2), (0,), "1 entries"),
    ],
)
def test_contradictions_are_refused(
    shape: tuple[int, ...], mesh: tuple[int, ...], shards: tuple[int, ...], words: str
) -> None:
    with pytest.raises(PlacementError, match=words):
        Placement(shape, mesh, shards)


def test_a_rank_off_the_mesh_is_refused() -> None:
    with pytest.raises(PlacementError, match="no rank 4"):
        Placement.sharded((4,), 4, 0).box(4)


def test_length_of_a_shard_needs_no_branch() -> None:
    assert [shard_length(5, 3, r) for r in range(3)] == [2, 2, 1]
