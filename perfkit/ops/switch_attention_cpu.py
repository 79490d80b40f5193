"""The fused switch + attention of one rank: through the symmetric heap, or by collectives.

Tensors are ``[B, T, S, H, D]``. ``attend`` (1 or 2) is the dimension that attention runs along,
the *rows*; the other one are the *positions*, which attention treats alike. *Whole* form means
all rows and this rank's positions, ``[B, positions, H, rows, D]`` to the kernels. See
``csrc/cpu/switch_attention.h``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from perfkit import _cpu
from perfkit.comm import collectives
from perfkit.comm.check import Call
from perfkit.comm.group import Group, resolve
from perfkit.comm.heap import SymmetricHeap
from perfkit.comm.layout import pack, unpack
from perfkit.comm.shards import shard_length, shard_lengths
from perfkit.comm.shared import SharedHeaps
from perfkit.ops import attention_cpu as cpu

# A chunk carries about this much, so that flags cost nothing and the last one is short.
_CHUNK_BYTES = 1 << 20
_MAX_CHUNKS = 32


@dataclass(frozen=True)
class Segment:
    """What all ranks know of one fused operation.

    ``pull``: the inputs arrive sharded by rows. ``push``: the result leaves so. ``chunks`` is 0
    for as many as the sizes suggest, ``link`` the bytes a second of an emulated link (0: none).
    """

    group: str
    attend: int
    sizes: tuple[int, int]
    pull: bool
    push: bool
    causal: bool
    scale: float
    chunks: int = 0
    in_order: bool = False
    stage: str = ""
    link: float = 0.0

    @property
    def rows(self) -> int:
        return self.sizes[self.attend - 1]

    @property
    def positions(self) -> int:
        return self.sizes[2 - self.attend]

    def whole(self, x: Tensor) -> Tensor:
        """``[B, T, S, H, D]`` as ``[B, positions, H, rows, D]``."""
        return x.permute(0, 3 - self.attend, 3, self.attend, 4)

    def shape(self, group: Group, batch: int, heads: int, dim: int, sharded: bool) -> list[int]:
        """Local shape ``[B, T, S, H, D]``, sharded by rows or by positions."""
        rows, positions = self.rows, self.positions
        if sharded:
            rows = shard_length(rows, group.size, group.rank)
        else:
            positions = shard_length(positions, group.size, group.rank)
        lengths = [rows, positions] if self.attend == 1 else [positions, rows]
        return [batch, *lengths, heads, dim]

    def whole_shape(self, group: Group, batch: int, heads: int, dim: int) -> list[int]:
        """``[B, positions, H, rows, D]`` of this rank."""
        positions = shard_length(self.positions, group.size, group.rank)
        return [batch, positions, heads, self.rows, dim]


@dataclass(frozen=True)
class _Heads:
    batch: int
    heads: int
    kv_heads: int
    dim: int
    value_dim: int

    def numbers(self, s: Segment, group: Group, frames: int) -> list[int]:
        ranks = [group.size, group.rank, frames]
        heads = [self.heads, self.kv_heads, self.dim, self.value_dim]
        return [self.batch, s.rows, s.positions, *ranks, *heads]

    def row_elements(self, s: Segment) -> tuple[int, int]:
        """Elements of one row of one position that are exchanged before and after."""
        before = self.heads * self.dim + self.kv_heads * (self.dim + self.value_dim)
        return before * s.pull, self.heads * self.value_dim * s.push

    def frames(self, s: Segment, group: Group, element: int) -> int:
        """Chunks of a rank's positions and heads, the same on every rank."""
        units = -(-s.positions // group.size) * self.kv_heads
        if s.chunks:
            return max(1, min(s.chunks, units))
        total = self.batch * s.rows * -(-s.positions // group.size) * sum(self.row_elements(s))
        return max(1, min(total * element // _CHUNK_BYTES, units, _MAX_CHUNKS))


def _heap(
    s: Segment, group: Group, heads: _Heads, kind: int, element: int
) -> tuple[SymmetricHeap | None, list[int]]:
    frames = heads.frames(s, group, element)
    sizes = heads.numbers(s, group, frames)
    slot = _cpu.switch_attention_slot_bytes(sizes, s.pull, s.push, kind)
    heaps = group.keep(SharedHeaps, lambda: SharedHeaps(group))
    return heaps.get(slot, frames=frames, subtiles=2), sizes


def _enter(s: Segment, group: Group, heads: _Heads, dtype: torch.dtype, name: str) -> None:
    """Agree in debug mode."""
    if group.checker is not None:
        shape = (heads.batch, *s.sizes, heads.heads, heads.dim)
        dims = (s.attend, int(s.pull), int(s.push))
        group.checker.agree(Call(name, s.stage, shape, str(dtype).removeprefix("torch."), dims))


def _count(s: Segment, group: Group, heads: _Heads, element: int, back: bool) -> None:
    """Bytes that leave and reach this rank through the heap."""
    rows = shard_length(s.rows, group.size, group.rank)
    positions = shard_length(s.positions, group.size, group.rank)
    mine_to_others = heads.batch * rows * (s.positions - positions) * element
    others_to_me = heads.batch * positions * (s.rows - rows) * element
    before, after = heads.row_elements(s)
    pulled, pushed = (after, before) if back else (before, after)
    stage = s.stage + " (backward)" if back else s.stage
    group.counters.add(
        stage,
        "switch_attention",
        mine_to_others * pulled + others_to_me * pushed,
        others_to_me * pulled + mine_to_others * pushed,
    )


def forward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, s: Segment, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Result, log-sum-exp, and what backward needs: output, q, k, v in whole form (or empty)."""
    group = resolve(s.group)
    heads = _Heads(q.shape[0], q.shape[3], k.shape[3], q.shape[4], v.shape[4])
    _enter(s, group, heads, q.dtype, "switch_attention")
    heap, sizes = _heap(s, group, heads, cpu.KINDS[q.dtype], q.element_size())
    if heap is None:
        return _plain_forward(q, k, v, mask, s, keep)
    _count(s, group, heads, q.element_size(), back=False)
    out, lse, *saved = empty_results(q, k, v, s, keep)
    scores = (*lse.shape, s.rows)
    status = _cpu.switch_attention_forward(
        heap.endpoint, sizes, s.scale, s.causal, s.pull, s.push,
        [
            *(cpu.numbers(s.whole(x)) for x in (q, k, v)),
            cpu.numbers(mask, scores),
            cpu.numbers(s.whole(out)),
            cpu.lse_numbers(lse),
            *(cpu.numbers(x if x.dim() == 5 else None) for x in (*saved[1:], saved[0])),
        ],
        torch.get_num_threads(), s.in_order, s.link,
    )  # fmt: skip
    heap.raise_status(status)
    return out, lse, saved[0], saved[1], saved[2], saved[3]


def empty_results(
    q: Tensor, k: Tensor, v: Tensor, s: Segment, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Uninitialised results of :func:`forward`."""
    group = resolve(s.group)
    batch, heads, kv_heads = q.shape[0], q.shape[3], k.shape[3]
    out = q.new_empty(s.shape(group, batch, heads, v.shape[4], s.push))
    lse = q.new_empty(s.whole_shape(group, batch, heads, 1)[:-1], dtype=torch.float32)

    def saved(wanted: bool, heads: int, dim: int) -> Tensor:
        shape = s.whole_shape(group, batch, heads, dim) if wanted and keep else [0]
        return q.new_empty(shape)

    return (
        out,
        lse,
        saved(s.push, heads, v.shape[4]),
        saved(s.pull, heads, q.shape[4]),
        saved(s.pull, kv_heads, k.shape[4]),
        saved(s.pull, kv_heads, v.shape[4]),
    )


def backward(
    d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, out: Tensor,
    lse: Tensor, s: Segment,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of the inputs, placed like them; ``q, k, v, out`` in whole form."""
    group = resolve(s.group)
    heads = _Heads(q.shape[0], q.shape[2], k.shape[2], q.shape[4], v.shape[4])
    _enter(s, group, heads, q.dtype, "switch_attention (backward)")
    heap, sizes = _heap(s, group, heads, cpu.KINDS[q.dtype], q.element_size())
    if heap is None:
        return _plain_backward(d_out, q, k, v, mask, out, lse, s)
    _count(s, group, heads, q.element_size(), back=True)
    gradients = empty_gradients(q, k, v, s)
    status = _cpu.switch_attention_backward(
        heap.endpoint, sizes, s.scale, s.causal, s.pull, s.push,
        [
            *(cpu.numbers(x) for x in (q, k, v)),
            cpu.numbers(mask, (*lse.shape, s.rows)),
            cpu.numbers(out),
            cpu.lse_numbers(lse),
            *(cpu.numbers(s.whole(x)) for x in (d_out, *gradients)),
        ],
        torch.get_num_threads(), s.in_order, s.link,
    )  # fmt: skip
    heap.raise_status(status)
    return gradients


def empty_gradients(q: Tensor, k: Tensor, v: Tensor, s: Segment) -> tuple[Tensor, Tensor, Tensor]:
    """Uninitialised ``[B, T, S, H, D]`` for inputs in whole form."""
    group = resolve(s.group)
    d_q, d_k, d_v = (
        x.new_empty(s.shape(group, x.shape[0], x.shape[2], x.shape[4], s.pull)) for x in (q, k, v)
    )
    return d_q, d_k, d_v


# --- without shared memory -------------------------------------------------------------------


def _switch(x: Tensor, s: Segment, group: Group, to_rows: bool, stage: str) -> Tensor:
    """``[B, T, S, H, D]`` with the other one of rows and positions sharded, by a collective."""
    rows_at, positions_at = s.attend, 3 - s.attend
    whole_at, split_at = (positions_at, rows_at) if to_rows else (rows_at, positions_at)
    whole = s.positions if to_rows else s.rows
    shape = list(x.shape)
    shape[whole_at] = whole
    shape[split_at] = shard_length(x.shape[split_at], group.size, group.rank)
    call = Call("switch", stage, tuple(shape), str(x.dtype).removeprefix("torch."))
    to_lengths = shard_lengths(x.shape[split_at], group.size)
    from_lengths = shard_lengths(whole, group.size)
    rest = x.shape[0] * x.shape[3] * x.shape[4]
    send = [n * x.shape[whole_at] * rest for n in to_lengths]
    receive = [n * shape[split_at] * rest for n in from_lengths]
    flat = pack(x, split_at, to_lengths)
    received = flat.new_empty(sum(receive))
    collectives.all_to_all(received, flat, receive, send, group, call)
    collectives.finish(received, group, call)
    return unpack(received, shape, whole_at, from_lengths)


def _plain_forward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, s: Segment, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    group = resolve(s.group)
    inputs = (q, k, v)
    if s.pull:
        whole = [s.whole(_switch(x, s, group, False, s.stage)).contiguous() for x in inputs]
    else:
        whole = [s.whole(x) for x in inputs]
    out, lse = cpu.forward(whole[0], whole[1], whole[2], mask, None, s.causal, s.scale)
    result = _user_form(out, s)
    result = _switch(result, s, group, True, s.stage) if s.push else result.contiguous()
    saved = [out.contiguous() if keep and s.push else q.new_empty((0,))]
    saved += whole if keep and s.pull else [q.new_empty((0,)) for _ in inputs]
    return result, lse, saved[0], saved[1], saved[2], saved[3]


def _plain_backward(
    d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, out: Tensor,
    lse: Tensor, s: Segment,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    group = resolve(s.group)
    stage = s.stage + " (backward)"
    if s.push:
        d_out = _switch(d_out, s, group, False, stage)
    found = cpu.backward(
        s.whole(d_out), q, k, v, mask, None, out, lse, s.causal, s.scale, False
    )
    d_q, d_k, d_v = (
        _switch(_user_form(x, s), s, group, True, stage)
        if s.pull
        else _user_form(x, s).contiguous()
        for x in found[:3]
    )
    return d_q, d_k, d_v


def _user_form(x: Tensor, s: Segment) -> Tensor:
    """The inverse of :meth:`Segment.whole`."""
    return x.permute(0, 3, 1, 2, 4) if s.attend == 1 else x.permute(0, 1, 3, 2, 4)
