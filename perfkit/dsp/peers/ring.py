"""Ring attention: queries stay where they are, keys and values go round the ranks.

Liu et al., "Ring Attention with Blockwise Transformers", arXiv 2310.01889, section 3. Each of the
N - 1 hops brings the keys and values of another rank while the ones before are computed with;
results of blocks are merged by their log-sum-exp (:mod:`perfkit.dsp.peers.blocks`). Of a tensor
of M bytes a rank sends 2 M f forward, f = (N - 1) / N, and 4 M f backward: keys and values go
round again, and their gradients travel with them until they are home.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from perfkit.comm import collectives
from perfkit.comm.check import Call
from perfkit.comm.group import Group, GroupLike, process_group_of, resolve
from perfkit.dsp.exchange import enter
from perfkit.dsp.operators import NAMESPACE, backward_stage, define
from perfkit.dsp.peers.blocks import Merged, attend_backward, wide_type
from perfkit.dsp.placement import shard_lengths
from perfkit.errors import SwitchError

_ops = getattr(torch.ops, NAMESPACE)


def ring_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    group: GroupLike = None,
    *,
    size: int,
    causal: bool = False,
    scale: float | None = None,
    stage: str = "",
) -> Tensor:
    """Self-attention over a sequence of global length ``size`` that is sharded.

    Sums and the travelling gradients of 16-bit floats are held in 32 bits, so their gradients
    take twice the bytes. With ``causal`` a rank computes with, and receives, only the positions
    up to its own: the last rank has the most to do.

    Args:
        q, k, v: ``[..., heads, positions of this rank, head dim]``, one number of heads; shards
            are balanced and may be empty.
        causal: position i sees the positions 0 to i of the whole sequence.
        scale: default ``1 / sqrt(head dim)``.

    Returns:
        ``[..., heads, positions of this rank, head dim of v]``.

    Raises:
        SwitchError: shapes that do not fit each other, or a shard that is not balanced.
        CollectiveError: a rank died or disagreed.
    """
    if min(q.ndim, k.ndim, v.ndim) < 3:
        raise SwitchError("q, k and v need dimensions [heads, positions, head dim]")
    if not q.shape[:-1] == k.shape[:-1] == v.shape[:-1] or q.shape[-1] != k.shape[-1]:
        raise SwitchError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} differ in more than "
            "the last dimension of v; repeat the heads of keys and values first"
        )
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    name = process_group_of(group).group_name
    out: Tensor = _ops.ring_attention(q, k, v, name, size, causal, scale, stage)[0]
    return out


class _Ring:
    """The hops of one call: who holds whose block when, and how long it is."""

    def __init__(self, like: Tensor, name: str, size: int, causal: bool, stage: str) -> None:
        self.group: Group = resolve(name)
        self.lengths = shard_lengths(size, self.group.size)
        self.causal = causal
        expected = self.lengths[self.group.rank]
        problem = ""
        if like.shape[-2] != expected:
            problem = (
                f"this rank holds {like.shape[-2]} of the {size} positions, but a balanced shard "
                f"has {expected}"
            )
        shape = (*like.shape[:-2], size, like.shape[-1])
        dtype = str(like.dtype).removeprefix("torch.")
        self.call = Call("ring_attention", stage, shape, dtype, problem=problem)
        enter(self.group, self.call)

    def block(self, hop: int) -> int:
        """Whose block this rank has after ``hop`` hops."""
        return (self.group.rank - hop) % self.group.size

    def needs(self, hop: int) -> bool:
        """Whether this rank computes with that block."""
        return not self.causal or hop <= self.group.rank

    def start(self, flat: Tensor, hop: int, row: int, always: bool = False) -> Tensor:
        """Pass a block on, and start to receive what hop number ``hop`` brings.

        ``row`` is the elements per position. Blocks go no further than they are needed, unless
        ``always``.
        """
        length = self.lengths[self.block(hop)] if always or self.needs(hop) else 0
        # What leaves here is the next rank's block of that hop.
        wanted = always or not self.causal or self.group.rank + 1 < self.group.size
        received = flat.new_empty(length * row)
        collectives.shift(received, flat if wanted else flat[:0], self.group, self.call)
        return received

    def finish(self, received: Tensor) -> Tensor:
        collectives.finish(received, self.group, self.call)
        return received


def _flat(k: Tensor, v: Tensor) -> Tensor:
    return torch.cat([k.reshape(-1), v.reshape(-1)])


def _apart(flat: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The keys and values that a flat buffer holds; shapes as those of ``k`` and ``v``."""
    row_k, row_v = _row(k), _row(v)
    length = flat.numel() // max(1, row_k + row_v)
    parts = flat.split([length * row_k, length * row_v])
    return (
        parts[0].view(*k.shape[:-2], length, k.shape[-1]),
        parts[1].view(*v.shape[:-2], length, v.shape[-1]),
    )


def _row(x: Tensor) -> int:
    """Elements per position."""
    return math.prod(x.shape[:-2]) * x.shape[-1]


def _forward(
    q: Tensor, k: Tensor, v: Tensor, name: str, size: int, causal: bool, scale: float, stage: str
) -> tuple[Tensor, Tensor]:
    ring = _Ring(q, name, size, causal, stage)
    ranks, row = ring.group.size, _row(k) + _row(v)
    merged = Merged(q, v.shape[-1], scale)
    held, block = _flat(k, v) if ranks > 1 else k[..., :0, :], (k, v)
    for hop in range(ranks):
        arriving = ring.start(held, hop + 1, row) if hop + 1 < ranks else None
        if ring.needs(hop):
            merged.add(*block, causal=causal and hop == 0)
        if arriving is not None:
            held = ring.finish(arriving)
            block = _apart(held, k, v)
    return merged.result()


def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    name: str,
    size: int,
    causal: bool,
    scale: float,
    stage: str,
) -> tuple[Tensor, Tensor, Tensor]:
    ring = _Ring(q, name, size, causal, stage)
    ranks, row = ring.group.size, _row(k) + _row(v)
    wide = wide_type(q.dtype)
    saved = (out, lse, scale)
    held, block = _flat(k, v) if ranks > 1 else k[..., :0, :], (k, v)
    grad_q = torch.zeros_like(q, dtype=wide, memory_format=torch.contiguous_format)
    mine: Tensor | None = None
    travelling: Tensor | None = None  # gradients of the block held, from the ranks before
    for hop in range(ranks):
        arriving = ring.start(held, hop + 1, row) if hop + 1 < ranks else None
        found: Tensor | None = None
        if ring.needs(hop):
            more, *others = attend_backward(grad, q, *block, *saved, causal and hop == 0)
            grad_q += more
            found = _flat(*others).to(wide)
        if hop == 0:
            mine = found
        else:
            total = q.new_zeros(ring.lengths[ring.block(hop)] * row, dtype=wide)
            if travelling is not None:
                total += ring.finish(travelling)
            if found is not None:
                total += found
            travelling = ring.start(total, hop + 1, row, always=True)
        if arriving is not None:
            held = ring.finish(arriving)
            block = _apart(held, k, v)
    assert mine is not None  # its own block every rank needs
    if travelling is not None:
        mine = mine + ring.finish(travelling)
    grad_k, grad_v = _apart(mine.to(q.dtype), k, v)
    # Two results of an operator must not share memory.
    return grad_q.to(q.dtype), grad_k.clone(), grad_v.clone()


def _forward_fake(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty((*q.shape[:-1], v.shape[-1])), q.new_empty(
        q.shape[:-1], dtype=wide_type(q.dtype)
    )


def _backward_fake(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, name, size, causal, scale, stage = inputs
    ctx.save_for_backward(q, k, v, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.call = (name, size, causal, scale, backward_stage(stage))


def _gradient(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    return *_ops.ring_attention_backward(grad, *ctx.saved_tensors, *ctx.call), *[None] * 5


define(
    "ring_attention(Tensor q, Tensor k, Tensor v, str group, SymInt size, bool causal, "
    "float scale, str stage) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
    _setup,
    _gradient,
)
define(
    "ring_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
    "str group, SymInt size, bool causal, float scale, str stage) -> (Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)
