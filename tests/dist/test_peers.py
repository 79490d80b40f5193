"""Ulysses and Megatron-SP on real processes: values and gradients of one process, and bytes."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import gelu, scaled_dot_product_attention

from perfkit import dsp
from perfkit.dsp.peers.megatron import megatron_block, own_part
from perfkit.dsp.peers.ulysses import ulysses_attention
from perfkit.dsp.placement import shard_interval
from perfkit.dsp.simulate import pair_volume
from perfkit.errors import SwitchError
from tests.dist.launcher import launch


def shard(x: Tensor, dim: int) -> Tensor:
    start, stop = shard_interval(x.shape[dim], dist.get_world_size(), dist.get_rank())
    return x.narrow(dim, start, stop - start).contiguous()


def close(found: Tensor | None, wanted: Tensor | None) -> None:
    assert found is not None and wanted is not None
    scale = max(1.0, float(wanted.abs().max())) if wanted.numel() else 1.0
    assert found.shape == wanted.shape
    assert not wanted.numel() or (found - wanted).abs().max() < 1e-10 * scale


def ulysses() -> None:
    torch.manual_seed(0)
    for heads, positions in [(4, 8), (3, 7), (1, 5), (6, 17)]:
        whole = [torch.randn(2, heads, positions, 4, dtype=torch.float64) for _ in range(3)]
        weight = torch.randn_like(whole[0])
        mine = [shard(x, 2).requires_grad_() for x in whole]
        for x in whole:
            x.requires_grad_()
        reference = scaled_dot_product_attention(*whole)
        (reference * weight).sum().backward()
        y = ulysses_attention(*mine, size=positions, stage="attention")
        close(y.detach(), shard(reference.detach(), 2))
        (y * shard(weight, 2)).sum().backward()
        for found, wanted in zip(mine, whole, strict=True):
            close(found.grad, shard(wanted.grad, 2))
    x = torch.ones(4, 2, 3)
    if dist.get_world_size() > 1:
        with pytest.raises(SwitchError, match="repeat the heads"):
            ulysses_attention(x, x[:2], x[:2], size=4)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ulysses_with_heads_that_do_not_divide(world: int) -> None:
    launch(world, ulysses)


def megatron() -> None:
    torch.manual_seed(0)
    ranks = dist.get_world_size()
    for hidden, positions in [(8, 8), (5, 7), (2, 17)]:
        x = torch.randn(2, positions, 6, dtype=torch.float64)
        up = torch.randn(hidden, 6, dtype=torch.float64, requires_grad=True)
        down = torch.randn(6, hidden, dtype=torch.float64, requires_grad=True)
        weight = torch.randn_like(x)
        low, high = own_part(hidden)

        def term(
            x: Tensor, up: Tensor = up, down: Tensor = down, low: int = low, high: int = high
        ) -> Tensor:
            return gelu(x @ up[low:high].T) @ down[:, low:high].T

        whole = x.clone().requires_grad_()
        reference = gelu(whole @ up.T) @ down.T
        (reference * weight).sum().backward()
        expected = [up.grad, down.grad]
        up.grad = down.grad = None
        mine = shard(x, 1).requires_grad_()
        y = megatron_block(term, mine, dim=1, size=positions, stage="mlp")
        close(y.detach(), shard(reference.detach(), 1))
        (y * shard(weight, 1)).sum().backward()
        close(mine.grad, shard(whole.grad, 1))
        for parameter, wanted in zip((up, down), expected, strict=True):
            dist.all_reduce(parameter.grad)
            close(parameter.grad, wanted)
        up.grad = down.grad = None
    if ranks > 1:
        counters = dsp.counters()
        counters.reset()
        x = torch.randn(1, 4 * ranks, 6)
        for _ in range(4):  # a pair of blocks: attention and MLP of each
            megatron_block(lambda x: x, shard(x, 1), dim=1)
        assert counters.total().sent == pair_volume("megatron", x.numel() * 4.0, ranks)
        counters.reset()
        q = torch.randn(1, ranks, 4, 6)
        for _ in range(2):
            ulysses_attention(q, q, q, size=4 * ranks)
        assert counters.total().sent == pair_volume("ulysses", q.numel() * 4.0 * ranks, ranks)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_megatron_with_widths_that_do_not_divide(world: int) -> None:
    launch(world, megatron)
