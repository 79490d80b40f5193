"""Switch + attention + switch on CPU ranks of one host, in five ways, and over slower links.

q, k and v come packed, as a projection leaves them: ``[B, T, S, 3, H, D]``, sharded on the axis
that attention runs along; the result is sharded likewise and belongs to the caller.

collectives  one all-to-all (gloo), torch's SDPA, one all-to-all
pipelined    the same in chunks, exchanges beside the attention (``dsp.pipelined_switch``)
zero-copy    stores into the peers' heaps, wait, ``ops.attention`` in place, stores back
fused        ``ops.switch_attention(back=True)``
alone        ``ops.attention`` on what a rank holds between the switches: no communication

A time is that of the slowest rank; contenders take turns; the median of the rounds counts.
Exposed communication is a time less that of ``alone``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from bench import ranks
from perfkit import dsp, ops
from perfkit.comm.heap import SymmetricHeap
from perfkit.comm.shards import shard_interval, shard_lengths

AGREE = 1e-4
CHUNKS = 4


@dataclass(frozen=True)
class Size:
    """``attend`` is the axis that attention runs along: 1 (T) or 2 (S)."""

    frames: int
    positions: int
    attend: int
    heads: int = 8
    dim: int = 64
    batch: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.batch, self.frames, self.positions, 3, self.heads, self.dim)

    @property
    def name(self) -> str:
        along = "T" if self.attend == 1 else "S"
        return f"T={self.frames} S={self.positions} D={self.dim} along {along}"


SIZES = (
    Size(16, 1024, 1),
    Size(16, 1024, 1, dim=72),
    Size(64, 256, 1),
    Size(128, 128, 1),
    Size(8, 512, 2),
    Size(8, 1024, 2),
    Size(4, 2048, 2),
)


class ZeroCopy:
    """Both switches by plain stores into the peers' memory, attention in between."""

    def __init__(self, size: Size, name: str) -> None:
        self.size = size
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.rows, self.positions = size.attend, 3 - size.attend
        self.heap = SymmetricHeap.join(
            name, self.rank, self.ranks, slot_bytes=4 * torch.Size(size.shape).numel()
        )

    def local(self, rank: int, sharded: int, packed: bool) -> tuple[int, ...]:
        shape = list(self.size.shape)
        shape[sharded] = shard_lengths(shape[sharded], self.ranks)[rank]
        return tuple(shape if packed else shape[:3] + shape[4:])

    def exchange(self, x: Tensor, source: int, target: int) -> Tensor:
        """This rank's slot after everybody has stored its part of ``x`` there."""
        packed = x.dim() == 6
        self.heap.begin()
        low, high = shard_interval(self.size.shape[source], self.ranks, self.rank)
        for step in range(self.ranks):
            peer = (self.rank + step) % self.ranks
            self.heap.wait_free(peer)
            slot = self.heap.tensor(self.local(peer, target, packed), x.dtype, rank=peer)
            begin, end = shard_interval(self.size.shape[target], self.ranks, peer)
            slot.narrow(source, low, high - low).copy_(x.narrow(target, begin, end - begin))
            self.heap.publish(peer)
        for peer in range(self.ranks):
            self.heap.wait(peer)
        return self.heap.tensor(self.local(self.rank, target, packed), x.dtype)

    def done(self) -> None:
        for peer in range(self.ranks):
            self.heap.acknowledge(peer)

    def __call__(self, packed: Tensor) -> Tensor:
        whole = self.exchange(packed, self.rows, self.positions)
        out = attend_ours(*whole.unbind(3), self.size)
        self.done()
        result = self.exchange(out, self.positions, self.rows).clone()
        self.done()
        return result


def attend_ours(q: Tensor, k: Tensor, v: Tensor, size: Size) -> Tensor:
    q, k, v = (x.movedim(size.attend, 2) for x in (q, k, v))
    return ops.attention(q, k, v).movedim(2, size.attend)


def attend_torch(packed: Tensor, size: Size) -> Tensor:
    q, k, v = (x.movedim(size.attend, 3) for x in packed.unbind(3))  # [B, other, H, rows, D]
    flat = [x.flatten(0, 1) for x in (q, k, v)]
    out = scaled_dot_product_attention(flat[0], flat[1], flat[2])
    return out.unflatten(0, q.shape[:2]).movedim(3, size.attend)


def contenders(size: Size, zero_copy: ZeroCopy) -> dict[str, Callable[[Tensor], Tensor]]:
    rows, positions = size.attend, 3 - size.attend

    def collectives(packed: Tensor) -> Tensor:
        length, other = size.shape[rows], size.shape[positions]
        y = dsp.switch(packed, from_dim=rows, to_dim=positions, size=length)
        return dsp.switch(attend_torch(y, size), from_dim=positions, to_dim=rows, size=other)

    def pipelined(packed: Tensor) -> Tensor:
        return dsp.pipelined_switch(
            lambda y: attend_torch(y, size), packed, from_dim=rows, to_dim=positions,
            size=size.shape[rows], chunks=CHUNKS,
        )  # fmt: skip

    def fused(packed: Tensor) -> Tensor:
        q, k, v = packed.unbind(3)
        return ops.switch_attention(
            q, k, v, from_dim=rows, to_dim=positions, sizes=size.shape[1:3], back=True
        )

    found = {"collectives": collectives, "pipelined": pipelined}
    return {**found, "zero-copy": zero_copy, "fused": fused}


def slowest(seconds: float) -> float:
    """Over the ranks."""
    found = torch.tensor(seconds, dtype=torch.float64)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return float(found)


def timed(run: Callable[[], object]) -> float:
    dist.barrier()
    started = time.perf_counter()
    run()
    return slowest(time.perf_counter() - started)


def compare(size: Size, rounds: int, training: bool) -> dict[str, float]:
    """Median seconds by contender, on this rank and every other.

    Raises:
        RuntimeError: two of them differ.
    """
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(size.shape, generator=generator)
    low, high = shard_interval(size.shape[size.attend], dist.get_world_size(), dist.get_rank())
    packed = whole.narrow(size.attend, low, high - low).contiguous()
    low, high = shard_interval(size.shape[3 - size.attend], dist.get_world_size(), dist.get_rank())
    between = whole.narrow(3 - size.attend, low, high - low).contiguous().unbind(3)
    zero_copy = ZeroCopy(size, f"bench-{dist.get_world_size()}-{size.name}-{training}")
    runs = contenders(size, zero_copy)
    if training:
        del runs["zero-copy"]  # has no gradient
        packed.requires_grad_()
    wanted = runs["collectives"](packed)
    grad = torch.randn(wanted.shape, generator=generator)

    def step(name: str) -> Callable[[], object]:
        if name == "alone":
            return lambda: attend_ours(*between, size)
        if not training:
            return lambda: runs[name](packed)
        return lambda: torch.autograd.grad(runs[name](packed), packed, grad)

    for name, run in runs.items():
        difference = ((run(packed) - wanted).norm() / wanted.norm()).item()
        if difference > AGREE:
            raise RuntimeError(f"{size.name}: {name} differs by {difference:.1e}")
    names = [*runs] if training else [*runs, "alone"]
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            spent = timed(step(name))
            if number:
                times[name].append(spent)
    zero_copy.heap.close()
    return {name: statistics.median(found) for name, found in times.items()}


def replay(size: Size, rounds: int, rates: Sequence[float]) -> list[tuple[float, float, float]]:
    """(bytes a second, seconds of the link alone, seconds of fused) per rate; 0 is no link."""
    rank, world = dist.get_rank(), dist.get_world_size()
    low, high = shard_interval(size.shape[size.attend], world, rank)
    q, k, v = torch.randn(size.shape).narrow(size.attend, low, high - low).unbind(3)
    name = dist.group.WORLD.group_name
    sizes = list(size.shape[1:3])

    def run(rate: float) -> None:
        torch.ops.perfkit.switch_attention(
            q, k, v, None, False, name, size.attend, sizes, True, True, False, 0.125, 16, False,
            "", rate,
        )  # fmt: skip

    moved = 4 * torch.Size(size.shape).numel() * (world - 1) / world**2  # q, k, v out of a rank
    moved *= 4 / 3  # and its part of the results
    found = []
    for rate in (0.0, *rates):
        run(rate)
        spent = statistics.median(timed(lambda rate=rate: run(rate)) for _ in range(rounds))
        found.append((rate, moved / rate if rate else 0.0, spent))
    return found


def run_compare(world: int, size: Size, rounds: int, training: bool) -> dict[str, float]:
    """:func:`compare` in a world of its own."""
    found: dict[str, float] = ranks.run(world, compare, size, rounds, training)[0]
    return found


def run_replay(
    world: int, size: Size, rounds: int, rates: Sequence[float]
) -> list[tuple[float, float, float]]:
    """:func:`replay` in a world of its own."""
    found: list[tuple[float, float, float]] = ranks.run(world, replay, size, rounds, rates)[0]
    return found
