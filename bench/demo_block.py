"""One block of a spatial-temporal diffusion transformer, frames sharded over two CPU ranks.

Spatial attention stays on a rank, since every rank has whole frames; temporal attention needs
all frames of a position, so its axis is switched before and after:

plain      switch, projections and attention, switch, by gloo collectives
pipelined  the same in chunks, so that one chunk travels while another is computed
fused      projections first, then one call that exchanges and attends through shared memory

What a way takes beyond the same arithmetic without any exchange is its exposed communication.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from bench import ranks
from perfkit import dsp, ops
from perfkit.comm.shards import shard_interval

BATCH, FRAMES, POSITIONS, HEADS, DIM = 1, 16, 512, 4, 32
WIDTH = HEADS * DIM
CHUNKS, ROUNDS, LIMIT = 2, 7, 38.0
AGREE = 1e-4


class Block(nn.Module):
    """Spatial attention, temporal attention, MLP; each after a layer norm, each added."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial, self.temporal = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.spatial_out, self.temporal_out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor, temporal: Callable[[Block, Tensor], Tensor]) -> Tensor:
        """``[B, T, S, C]``; ``temporal`` does what needs all frames of a position."""
        q, k, v = heads(self.spatial(normal(x)))
        x = x + self.spatial_out(ops.attention(q, k, v).flatten(-2))
        x = x + temporal(self, normal(x))
        return x + self.down(gelu(self.up(normal(x))))

    def along_frames(self, y: Tensor) -> Tensor:
        """Temporal attention on a tensor that has all frames."""
        q, k, v = (t.movedim(1, 3) for t in heads(self.temporal(y)))  # [B, S, H, T, D]
        out = scaled_dot_product_attention(*(t.flatten(0, 1) for t in (q, k, v)))
        return self.temporal_out(out.unflatten(0, q.shape[:2]).movedim(3, 1).flatten(-2))


def normal(x: Tensor) -> Tensor:
    return layer_norm(x, (WIDTH,))


def heads(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = packed.unflatten(-1, (3, HEADS, DIM)).unbind(-3)
    return q, k, v


def plain(block: Block, y: Tensor) -> Tensor:
    y = block.along_frames(dsp.switch(y, from_dim=1, to_dim=2, size=FRAMES))
    return dsp.switch(y, from_dim=2, to_dim=1, size=POSITIONS)


def pipelined(block: Block, y: Tensor) -> Tensor:
    return dsp.pipelined_switch(
        block.along_frames, y, from_dim=1, to_dim=2, size=FRAMES, chunks=CHUNKS
    )


def fused(block: Block, y: Tensor) -> Tensor:
    q, k, v = heads(block.temporal(y))
    sizes = (FRAMES, POSITIONS)
    out = ops.switch_attention(q, k, v, from_dim=1, to_dim=2, sizes=sizes, back=True)
    return block.temporal_out(out.flatten(-2))


def alone(block: Block, y: Tensor) -> Tensor:
    """The arithmetic between the switches, on numbers of no meaning."""
    local = y.shape
    whole = y.reshape(BATCH, FRAMES, POSITIONS // dist.get_world_size(), WIDTH)
    return block.along_frames(whole).reshape(local)


WAYS = {"plain": plain, "pipelined": pipelined, "fused": fused}


def body() -> dict[str, tuple[float, float]]:
    """Per way and for the arithmetic alone, the median seconds of a step (forward and backward) and
    the largest difference."""
    torch.manual_seed(0)
    block = Block()
    whole = torch.randn(BATCH, FRAMES, POSITIONS, WIDTH)
    low, high = shard_interval(FRAMES, dist.get_world_size(), dist.get_rank())
    with torch.no_grad():
        wanted = block(whole, Block.along_frames)[:, low:high]
    x = whole[:, low:high].contiguous().requires_grad_()
    ways = {**WAYS, "alone": alone}
    times: dict[str, list[float]] = {name: [] for name in ways}
    differences: dict[str, float] = {}
    for number in range(ROUNDS + 1):
        for name, way in ways.items():
            dist.barrier()
            started = time.perf_counter()
            out = block(x, way)
            torch.autograd.grad(out.sum(), x)
            spent = torch.tensor(time.perf_counter() - started)
            dist.all_reduce(spent, dist.ReduceOp.MAX)
            if number:
                times[name].append(spent.item())
            differences[name] = (out - wanted).abs().max().item() / wanted.abs().max().item()
    return {name: (statistics.median(times[name]), differences[name]) for name in ways}


def show() -> int:
    """Print the table; 0 when all three agree with one process."""
    world = 2
    sys.stdout.write(
        f"One ST-DiT block, {FRAMES} frames x {POSITIONS} positions x {WIDTH}, frames sharded over "
        f"{world} CPU ranks\n"
    )
    try:
        answers = ranks.run(world, body, limit=LIMIT)
    except ranks.RanksFailed as error:
        sys.stdout.write(f"  failed: {error}\n")
        return 1
    right = True
    base, compute = answers[0]["plain"][0], answers[0]["alone"][0]
    for name in WAYS:
        seconds, difference = answers[0][name][0], max(answer[name][1] for answer in answers)
        right &= difference < AGREE
        verdict = "right" if difference < AGREE else f"WRONG, differs by {difference:.1e}"
        sys.stdout.write(
            f"  {name:10} {1e3 * seconds:7.1f} ms forward + backward  "
            f"{base / seconds:4.2f}x  exposed communication {1e3 * (seconds - compute):5.1f} ms  "
            f"{verdict}\n"
        )
    return 0 if right else 1
