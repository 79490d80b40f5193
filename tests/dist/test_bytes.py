"""Bytes counted on fake groups of up to 128 ranks, against closed forms and isl cardinalities.

torch's fake process group runs one rank of a large world in this process and moves nothing; what
is counted is what the real code path handed to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from perfkit import dsp
from perfkit.comm.counters import Counters
from perfkit.dsp.placement import Placement, shard_length
from perfkit.dsp.transfers import Transfer, compose


@contextmanager
def one_of(world: int, rank: int) -> Iterator[Counters]:
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
    try:
        yield dsp.counters()
    finally:
        dist.destroy_process_group()


WORLDS = [2, 4, 8, 16, 32, 64, 128]


@pytest.mark.parametrize("world", WORLDS)
def test_even_switches_split_and_gather_have_the_closed_forms(world: int) -> None:
    """DSP.md's table, per rank: switch M/N f sent, gather M f, split 0, f = (N-1)/N; twice the
    volume with backward, where split's backward gathers and gather's sends nothing."""
    frames, positions, width = 128, 256, 2
    total = frames * positions * width * 4
    share = total // world * (world - 1) // world
    with one_of(world, world - 1) as counters:
        full = torch.zeros(1, frames, positions, width, requires_grad=True)
        x = dsp.split(full, dim=1, stage="split")
        x = dsp.switch(x, from_dim=1, to_dim=2, size=frames, stage="switch")
        x = dsp.gather(x, dim=2, size=positions, stage="gather")
        x.sum().backward()
        for stage, forward, backward in (
            ("split", 0, total // world * (world - 1)),
            ("switch", share, share),
            ("gather", total // world * (world - 1), 0),
        ):
            for name, volume in ((stage, forward), (f"{stage} (backward)", backward)):
                count = counters.total(name)
                assert (count.sent, count.received) == (volume, volume), name


@pytest.mark.parametrize("world", WORLDS)
def test_a_pair_of_blocks_sends_2_m_f_over_n(world: int) -> None:
    frames, positions, width = 128, 128, 3
    with one_of(world, 0) as counters:
        x = torch.zeros(1, frames // world, positions, width)
        y = dsp.switch(x, from_dim=1, to_dim=2, size=frames)
        dsp.switch(y, from_dim=2, to_dim=1, size=positions)
        total = frames * positions * width * 4
        assert counters.total().sent == 2 * total * (world - 1) // world // world


@pytest.mark.parametrize(("world", "end"), list(product([2, 3, 4, 8, 33, 128], [0, 1])))
@pytest.mark.parametrize("size", [(17, 51), (9, 40)])
def test_uneven_bytes_are_the_isl_cardinalities(
    world: int, end: int, size: tuple[int, int]
) -> None:
    rank = end * (world - 1)
    shape = (2, *size, 3)
    here, there = Placement.sharded(shape, world, 1), Placement.sharded(shape, world, 2)
    whole = Placement.replicated(shape, world)
    with one_of(world, rank) as counters:
        x = torch.zeros(2, shard_length(size[0], world, rank), size[1], 3, dtype=torch.bfloat16)
        y = dsp.switch(x, from_dim=1, to_dim=2, size=size[0], stage="switch")
        dsp.gather(y, dim=2, size=size[1], stage="gather")
        dsp.reduce_scatter(torch.zeros(shape), dim=1, stage="reduce")
        expect(counters, "switch", compose(here, there, rank), 2)
        expect(counters, "gather", compose(there, whole, rank), 2)
        # The adjoint moves what a gather does, the other way.
        back = compose(here, whole, rank)
        assert counters.total("reduce").sent == back.received * 4
        assert counters.total("reduce").received == back.sent * 4


def expect(counters: Counters, stage: str, moved: Transfer, size: int) -> None:
    count = counters.total(stage)
    assert (count.sent, count.received) == (moved.sent * size, moved.received * size)


def test_asynchronous_forms_count_alike() -> None:
    with one_of(8, 3) as counters:
        x = torch.zeros(1, 2, 12, 4, requires_grad=True)
        for overlapped in (False, True):
            stage = str(overlapped)
            y = dsp.switch(x, from_dim=1, to_dim=2, size=13, stage=stage, async_op=overlapped)
            y = y.wait() if isinstance(y, dsp.Pending) else y
            y.sum().backward()
        for suffix in ("", " (backward)"):
            assert counters.total(f"True{suffix}").sent > 0
            assert counters.total(f"True{suffix}").sent == counters.total(f"False{suffix}").sent
