"""Attention fused with the switch: virtual ranks in one launch, graph replay, a missing rank."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn.functional import scaled_dot_product_attention  # noqa: E402

from perfkit import _cpu  # noqa: E402
from perfkit.ops.attention_cpu import numbers  # noqa: E402

try:
    from perfkit import _cuda
except ImportError:
    pytest.skip("needs perfkit._cuda", allow_module_level=True)


@dataclass
class World:
    """Virtual ranks on one GPU; ``positions`` and ``rows`` are the lengths of their parts."""

    positions: list[int]
    rows: list[int]
    batches: int = 2
    heads: int = 4
    kv_heads: int = 2
    dim: int = 64
    causal: bool = False
    timeout_ns: int = 20_000_000_000
    first_epoch: int = 0
    heaps: list[Any] = field(default_factory=list)
    counters: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        ranks, frames = len(self.rows), sum(self.positions)
        lines = self.batches * frames * max(self.rows) * self.dim
        self.slot = 2 * lines * (self.heads + 2 * self.kv_heads)
        layout = (ranks, frames, 1, self.slot)
        size = _cpu.heap_bytes(*layout)
        for rank in range(ranks):
            host = np.full(size, 255, np.uint8)  # NaNs where nothing is written
            _cpu.heap_initialise(
                _cpu.address(host), *layout, rank, 1, 0, 0, 0, self.first_epoch
            )
            self.heaps.append(torch.from_numpy(host).cuda())
            self.counters.append(torch.zeros(frames + 1, dtype=torch.int32, device="cuda"))

    def begins(self, lengths: list[int]) -> list[int]:
        return [0, *accumulate(lengths)]

    def run(self, name: str, tensors: list[list[Any]], ranks: list[int] | None = None) -> None:
        """``tensors``: q, k, v, out, lse of each rank of the launch."""
        here = [
            [[rank, self.counters[rank].data_ptr()], *(numbers(t) for t in tensors[i])]
            for i, rank in enumerate(range(len(self.rows)) if ranks is None else ranks)
        ]
        stream = torch.cuda.current_stream()
        getattr(_cuda, name)(
            stream.device.index, stream.cuda_stream, [h.data_ptr() for h in self.heaps],
            self.begins(self.positions), self.begins(self.rows),
            [self.batches, self.heads, self.kv_heads, self.dim, self.slot],
            1 / math.sqrt(self.dim), self.causal, self.timeout_ns, here,
        )  # fmt: skip

    def inputs(self) -> list[Any]:
        """q, k, v ``[B, T, S, heads, dim]``."""
        shape = (self.batches, sum(self.positions), sum(self.rows))
        return [
            torch.randn(*shape, heads, self.dim, device="cuda", dtype=torch.bfloat16)
            for heads in (self.heads, self.kv_heads, self.kv_heads)
        ]

    def reference(self, q: Any, k: Any, v: Any) -> Any:
        group = self.heads // self.kv_heads
        k, v = (t.repeat_interleave(group, 3) for t in (k, v))
        views = (t.double().transpose(2, 3) for t in (q, k, v))
        return scaled_dot_product_attention(*views, is_causal=self.causal).transpose(2, 3)

    def aborted(self, rank: int) -> int:
        """The abort word: one line behind the epoch, see csrc/protocol/layout.h."""
        return int(self.heaps[rank][:HEADER].view(torch.int64)[ABORT].item())


HEADER = _cpu.HEAP_HEADER_BYTES
ABORT = (HEADER - 2 * 64) // 8  # epoch, abort, joined are the header's last three lines


def split(x: Any, dim: int, lengths: list[int]) -> list[Any]:
    return [part.contiguous() for part in x.split(lengths, dim)]


def shaped(x: Any) -> Any:
    """``[B, T, S, heads, dim]`` as the kernels number it: heads before rows."""
    return None if x is None else x.transpose(2, 3)


WORLDS = [
    {"positions": [2, 2], "rows": [64, 64]},
    {"positions": [1, 3], "rows": [100, 29], "dim": 72},
    {"positions": [0, 2, 1, 2], "rows": [130, 0, 7, 63], "causal": True, "dim": 128},
    {"positions": [1] * 8, "rows": [33] * 8, "heads": 2},
]


def push(world: World, parts: list[list[Any]], ranks: list[int] | None = None) -> list[Any]:
    numbers_of = range(len(world.rows)) if ranks is None else ranks
    world.run("switch_push", [[*map(shaped, parts[r]), None, None] for r in numbers_of], ranks)
    outs = [
        torch.full((world.batches, sum(world.positions), world.rows[r], world.heads, world.dim),
                   math.nan, device="cuda", dtype=torch.bfloat16)
        for r in numbers_of
    ]  # fmt: skip
    world.run("switch_collect", [[None, None, None, shaped(o), None] for o in outs], ranks)
    return outs


@pytest.mark.parametrize("arguments", WORLDS, ids=lambda a: str(a["rows"]))
def test_push(arguments: dict[str, Any]) -> None:
    world = World(**arguments, first_epoch=2**64 - 3)
    for _ in range(5):  # both slots, again
        whole = world.inputs()
        parts = list(zip(*(split(t, 1, world.positions) for t in whole), strict=True))
        outs = push(world, [list(p) for p in parts])
        want = split(world.reference(*whole), 2, world.rows)
        for out, exact in zip(outs, want, strict=True):
            torch.testing.assert_close(out.double(), exact, atol=3e-2, rtol=0)


@pytest.mark.parametrize("arguments", WORLDS, ids=lambda a: str(a["rows"]))
def test_pull(arguments: dict[str, Any]) -> None:
    world = World(**arguments)
    for _ in range(5):
        whole = world.inputs()
        parts = list(zip(*(split(t, 2, world.rows) for t in whole), strict=True))
        outs = [
            torch.full((world.batches, own, sum(world.rows), world.heads, world.dim), math.nan,
                       device="cuda", dtype=torch.bfloat16)
            for own in world.positions
        ]  # fmt: skip
        given = [
            [*map(shaped, part), shaped(out), None]
            for part, out in zip(parts, outs, strict=True)
        ]
        world.run("switch_stage", given)
        world.run("switch_pull", given)
        want = split(world.reference(*whole), 1, world.positions)
        for out, exact in zip(outs, want, strict=True):
            torch.testing.assert_close(out.double(), exact, atol=3e-2, rtol=0)


def test_a_graph_replays_operations() -> None:
    world = World([2, 2], [64, 64])
    whole = world.inputs()
    parts = [list(p) for p in zip(*(split(t, 1, [2, 2]) for t in whole), strict=True)]
    push(world, parts)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outs = push(world, parts)
    for _ in range(4):
        for part in parts:
            for t in part:
                t.copy_(torch.randn_like(t))
        graph.replay()
        torch.cuda.synchronize()
        again = [torch.cat([p[i] for p in parts], 1) for i in range(3)]
        want = split(world.reference(*again), 2, world.rows)
        for out, exact in zip(outs, want, strict=True):
            torch.testing.assert_close(out.double(), exact, atol=3e-2, rtol=0)


def test_a_missing_rank_ends_every_wait() -> None:
    world = World([1, 1, 1], [32, 32, 32], timeout_ns=50_000_000)
    parts = [list(p) for p in zip(*(split(t, 1, [1, 1, 1]) for t in world.inputs()), strict=True)]
    push(world, parts, ranks=[0, 1])
    torch.cuda.synchronize()
    assert all(world.aborted(rank) & 0xFFFFFF == 2 for rank in range(3))
