"""torch.compile traces the primitives without a break; fakes have the shapes and strides."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from perfkit import dsp
from perfkit.dsp.peers.megatron import megatron_block, own_part
from perfkit.dsp.peers.ulysses import ulysses_attention
from perfkit.dsp.placement import shard_interval, shard_length
from tests.dist.launcher import launch


def shard(x: Tensor, dim: int) -> Tensor:
    start, stop = shard_interval(x.shape[dim], dist.get_world_size(), dist.get_rank())
    return x.narrow(dim, start, stop - start).contiguous()


class Block(nn.Module):
    """Two pointwise-and-attention stages, each over the axis that is whole."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return x + self.out(nn.functional.scaled_dot_product_attention(q, k, v))

    def whole(self, x: Tensor) -> Tensor:
        x = self.attend(x)
        return self.attend(x.transpose(1, 2)).transpose(1, 2)

    def sharded(self, x: Tensor, group: Any, frames: int) -> Tensor:
        """x[B, T sharded, S, C]: spatial stage, switch, temporal stage, switch back."""
        positions = x.shape[2]
        x = self.attend(x)
        pending = dsp.switch(
            x, group, from_dim=1, to_dim=2, size=frames, stage="to time", async_op=True
        )
        y = self.attend(pending.wait().transpose(1, 2)).transpose(1, 2)
        return dsp.switch(y, group, from_dim=2, to_dim=1, size=positions, stage="to space")


def compiled_block(backend: str, meshed: bool) -> int:
    """Compares with one process at several shapes; returns how often it was compiled."""
    torch.manual_seed(0)
    block = Block(8).double()
    group: Any = dist.group.WORLD
    if meshed:
        group = dist.init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("sp",))
    counter = CompileCounterWithBackend(backend)

    def run(x: Tensor, frames: int) -> Tensor:
        return block.sharded(x, group, frames)

    fast = torch.compile(run, backend=counter, fullgraph=True)
    for frames, positions in [(5, 9), (8, 11), (17, 51)]:
        x = torch.randn(2, frames, positions, 8, dtype=torch.float64)
        mine = shard(x, 1).requires_grad_()
        whole = x.clone().requires_grad_()
        y = fast(mine, frames)
        reference = block.whole(whole)
        assert (y - shard(reference, 1)).abs().max() < 1e-10
        y.square().sum().backward()
        found = {name: p.grad for name, p in block.named_parameters()}
        for gradient in found.values():
            dist.all_reduce(gradient)
        block.zero_grad(set_to_none=True)
        reference.square().sum().backward()
        assert (mine.grad - shard(whole.grad, 1)).abs().max() < 1e-10
        for name, p in block.named_parameters():
            assert (found[name] - p.grad).abs().max() < 1e-9, name
        block.zero_grad(set_to_none=True)
    return counter.frame_count


def test_a_block_compiles_whole_and_a_second_shape_recompiles_at_most_once() -> None:
    assert max(launch(2, compiled_block, "aot_eager", True, timeout=240)) <= 2


@pytest.mark.slow
def test_uneven_shapes_on_three_ranks() -> None:
    assert max(launch(3, compiled_block, "aot_eager", False, timeout=240)) <= 2


@pytest.mark.slow
def test_inductor_agrees_and_reuses_no_buffer_in_flight() -> None:
    assert max(launch(2, compiled_block, "inductor", False, timeout=500, group_timeout=400)) <= 2


def every_primitive(x: Tensor, size: int) -> Tensor:
    y = dsp.gather(x * 2, dim=1, size=size, grad="partial")
    y = y + dsp.gather(x, dim=1, size=size, async_op=True).wait()
    y = dsp.split(y, dim=2) + dsp.reduce_scatter(y, dim=2)
    return y + dsp.reduce_scatter(y.new_ones(2, size, 3), dim=2, async_op=True).wait()[:, :1]


def compiled_primitives() -> None:
    for size in (5, 8):
        x = shard(torch.arange(2.0 * size * 3, dtype=torch.float64).view(2, size, 3), 1)
        results = []
        for run in (
            every_primitive,
            torch.compile(every_primitive, backend="aot_eager", fullgraph=True),
        ):
            mine = x.clone().requires_grad_()
            y = run(mine, size)
            (y * y).sum().backward()
            results.append((y.detach(), mine.grad))
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])


def test_every_primitive_compiles() -> None:
    launch(2, compiled_primitives, timeout=240)


def peers_and_pipeline(x: Tensor, frames: int) -> Tensor:
    """Ulysses, Megatron-SP and a pipelined switch on x[B, T sharded, S, C], one after the other."""
    q = x.unflatten(-1, (2, -1)).permute(0, 2, 3, 1, 4)  # [B, S, heads, T, dim]
    x = x + ulysses_attention(q, q, q, size=frames).permute(0, 3, 1, 2, 4).flatten(-2)
    low, high = own_part(x.shape[-1])
    x = x + megatron_block(
        lambda y: y[..., low:high].tanh() @ y.new_ones(high - low, y.shape[-1]),
        x,
        dim=1,
        size=frames,
    )
    return dsp.pipelined_switch(
        lambda y: y.cumsum(1), x, from_dim=1, to_dim=2, size=frames, chunks=2
    )


def compiled_peers() -> int:
    """Values and gradients against eager at three shapes; returns how often it was compiled."""
    counter = CompileCounterWithBackend("aot_eager")
    fast = torch.compile(peers_and_pipeline, backend=counter, fullgraph=True)
    for frames, positions in [(5, 9), (8, 11), (17, 51)]:
        x = shard(torch.randn(2, frames, positions, 6, dtype=torch.float64), 1)
        results = []
        for run in (peers_and_pipeline, fast):
            mine = x.clone().requires_grad_()
            y = run(mine, frames)
            y.square().sum().backward()
            results.append((y.detach(), mine.grad))
        for eager, found in zip(*results, strict=True):
            assert torch.allclose(eager, found, rtol=1e-11, atol=1e-11)
    return counter.frame_count


def test_peers_and_a_pipelined_switch_compile_whole() -> None:
    assert max(launch(2, compiled_peers, timeout=240)) <= 2


def checked_operators() -> None:
    """torch's own checks: schema, fake against real (strides too), autograd registration."""
    name = dist.group.WORLD.group_name
    rank = dist.get_rank()
    ops = torch.ops.perfkit_dsp
    x = shard(torch.randn(2, 5, 3), 1).requires_grad_()
    flipped = shard(torch.randn(3, 5, 2), 1).permute(2, 1, 0)
    full = torch.randn(2, 5, 3, requires_grad=True)
    for op, inputs in (
        (ops.switch.default, (x, name, 1, 2, 5, "")),
        (ops.switch.default, (flipped, name, 1, 2, 5, "")),
        (ops.gather.default, (x, name, 1, 5, False, "")),
        (ops.gather.default, (x, name, 1, 5, True, "")),
        (ops.split.default, (full, name, 1, "")),
        (ops.reduce_scatter.default, (full, name, 2, "")),
    ):
        torch.library.opcheck(op, inputs)
    assert shard_length(5, 2, rank) == x.shape[1]


def test_operators_pass_torchs_own_checks() -> None:
    launch(2, checked_operators, timeout=120)
