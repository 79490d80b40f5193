"""Attention fused with the switch of the sharded axis before it, after it, or both.

Dynamic sequence parallelism (arXiv 2403.10266) shards one of two sequence axes and switches
between them; here the exchange runs inside the attention call, through shared memory, chunk by
chunk: what has arrived is computed, what is computed leaves. Backward exchanges the gradients the
same way and sends nothing twice, since the switched q, k, v are saved. Ranks on different hosts,
or without enough shared memory, use collectives instead and say so once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from perfkit.comm.group import GroupLike, process_group_of
from perfkit.comm.shards import shard_length
from perfkit.errors import DtypeError, GradientError, RankError, SizeError, SwitchError
from perfkit.ops import switch_attention_cpu as cpu
from perfkit.ops.attention import attention, check_arguments
from perfkit.ops.switch_attention_cpu import Segment

# Kept for the life of the module: the operators vanish with it.
_LIBRARY = torch.library.Library("perfkit", "FRAGMENT")
_SEGMENT = (
    "str group, int attend, SymInt[] sizes, bool pull, bool push, bool causal, float scale, "
    "int chunks, bool in_order, str stage, float link"
)
_SEGMENT_FIELDS = _SEGMENT.count(",") + 1
_LIBRARY.define(
    f"switch_attention(Tensor q, Tensor k, Tensor v, Tensor? mask, bool keep, {_SEGMENT}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    "switch_attention_backward(Tensor d_out, Tensor q, Tensor k, Tensor v, Tensor? mask, "
    f"Tensor out, Tensor lse, {_SEGMENT}) -> (Tensor, Tensor, Tensor)"
)


def switch_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    group: GroupLike = None,
    *,
    from_dim: int,
    to_dim: int,
    sizes: Sequence[int] | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    back: bool = False,
    chunks: int = 0,
    deterministic: bool = False,
    stage: str = "",
) -> Tensor:
    """Switch q, k, v from ``from_dim`` to ``to_dim``, then attend along ``from_dim``.

    Args:
        q: ``[B, T, S, heads, dim]``, float32 or bfloat16, any strides; this rank's shard:
            ``from_dim`` (1 or 2) is sharded, ``to_dim`` (the other one) whole.
        k, v: like q; their number of heads may divide that of q (grouped queries).
        group: a process group of CPU ranks, a mesh of one axis, a group's name, or None.
        sizes: global lengths (T, S); may be left out only where ``from_dim`` divides evenly.
        mask: broadcasts to ``[B, positions, heads, rows, rows]``, rows being ``from_dim`` whole
            and positions this rank's part of ``to_dim``; boolean (True: attend) or added.
        causal: row i sees the rows 0 to i.
        scale: default ``1 / sqrt(dim)``.
        back: switch the result back too: it is sharded like q.
        chunks: pieces that travel and are computed one by one; 0 lets the sizes decide.
        deterministic: take chunks in a fixed order. The result has the same bits either way,
            since chunks are independent of each other; only timing is less reproducible.
        stage: labels the bytes in :func:`perfkit.comm.group.counters`.

    Returns:
        ``[B, T, S, heads, value dim]``: ``from_dim`` whole and ``to_dim`` sharded, unless
        ``back``.

    Raises:
        SwitchError, RankError, SizeError, DtypeError, DeviceError: wrong arguments.
        HeapTimeout, HeapAborted: a rank died or did not come in time.
    """
    attend, other = _dims(q, from_dim, to_dim)
    return _fused(
        q, k, v, group, attend, other, sizes, mask, causal, scale,
        pull=True, push=back, chunks=chunks, in_order=deterministic, stage=stage,
    )  # fmt: skip


def attention_switch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    group: GroupLike = None,
    *,
    from_dim: int,
    to_dim: int,
    sizes: Sequence[int] | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    chunks: int = 0,
    deterministic: bool = False,
    stage: str = "",
) -> Tensor:
    """Attend along ``to_dim``, then switch the result from ``from_dim`` to ``to_dim``.

    Args: as for :func:`switch_attention`; q, k, v are sharded on ``from_dim``, and the rows of a
    mask are ``to_dim``.

    Returns:
        ``[B, T, S, heads, value dim]`` with ``from_dim`` whole and ``to_dim`` sharded.

    Raises:
        SwitchError, RankError, SizeError, DtypeError, DeviceError: wrong arguments.
        HeapTimeout, HeapAborted: a rank died or did not come in time.
    """
    other, attend = _dims(q, from_dim, to_dim)
    return _fused(
        q, k, v, group, attend, other, sizes, mask, causal, scale,
        pull=False, push=True, chunks=chunks, in_order=deterministic, stage=stage,
    )  # fmt: skip


def _dims(q: Tensor, from_dim: int, to_dim: int) -> tuple[int, int]:
    if q.dim() != 5:
        raise RankError(f"q has {q.dim()} dimensions; [B, T, S, heads, dim] has 5")
    found = tuple(d + 5 if d < 0 else d for d in (from_dim, to_dim))
    if sorted(found) != [1, 2]:
        raise SwitchError(f"from_dim={from_dim}, to_dim={to_dim}: one is T (1), the other S (2)")
    return found[0], found[1]


def _fused(
    q: Tensor, k: Tensor, v: Tensor, group: GroupLike, attend: int, other: int,
    sizes: Sequence[int] | None, mask: Tensor | None, causal: bool, scale: float | None, *,
    pull: bool, push: bool, chunks: int, in_order: bool, stage: str, link: float = 0.0,
) -> Tensor:  # fmt: skip
    for name, x in (("k", k), ("v", v)):
        if x.dim() != 5:
            raise RankError(f"{name} has {x.dim()} dimensions; [B, T, S, heads, dim] has 5")
        if x.shape[:3] != q.shape[:3]:
            raise SizeError(f"(B, T, S) of {name} is {tuple(x.shape[:3])}, of q {q.shape[:3]}")
    check_arguments(q.movedim(attend, 3), k.movedim(attend, 3), v.movedim(attend, 3), None, None)
    if chunks < 0:
        raise SwitchError(f"chunks={chunks}: 0 or more")
    member = process_group_of(group)
    ranks, rank = member.size(), member.rank()
    whole = _global_sizes(q, attend if pull else other, sizes, ranks, rank)
    rows = whole[attend - 1]
    local = q.shape[other] if not pull else shard_length(q.shape[other], ranks, rank)
    if mask is not None:
        _check_mask(mask, (q.shape[0], local, q.shape[3], rows, rows))
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    if ranks == 1:
        q, k, v = q.movedim(attend, 2), k.movedim(attend, 2), v.movedim(attend, 2)
        return attention(q, k, v, mask, causal=causal, scale=scale).movedim(2, attend)
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    out: Tensor = torch.ops.perfkit.switch_attention(
        q, k, v, mask, keep, member.group_name, attend, whole, pull, push, causal, scale,
        chunks, in_order, stage, link,
    )[0]  # fmt: skip
    return out


def _global_sizes(
    q: Tensor, sharded: int, sizes: Sequence[int] | None, ranks: int, rank: int
) -> list[int]:
    """Lengths (T, S) over all ranks."""
    found = [q.shape[1], q.shape[2]]
    if sizes is None:
        found[sharded - 1] *= ranks
        return found
    if len(sizes) != 2:
        raise SwitchError(f"sizes={tuple(sizes)}: the global lengths (T, S)")
    found = list(sizes)
    expected = shard_length(found[sharded - 1], ranks, rank)
    if q.shape[sharded] != expected or q.shape[3 - sharded] != found[2 - sharded]:
        raise SwitchError(
            f"rank {rank} of {ranks} holds (T, S) = {tuple(q.shape[1:3])} of sizes={tuple(sizes)}; "
            f"a balanced shard has {expected} along dimension {sharded} and all of the other"
        )
    return found


def _check_mask(mask: Tensor, scores: tuple[int, ...]) -> None:
    if mask.dtype not in (torch.bool, torch.float32, torch.bfloat16):
        raise DtypeError(f"mask is {mask.dtype}; use torch.bool, torch.float32 or torch.bfloat16")
    pairs = zip(reversed(mask.shape), reversed(scores), strict=False)
    if mask.dim() > 5 or any(have not in (1, want) for have, want in pairs):
        raise SizeError(
            f"mask {tuple(mask.shape)} does not broadcast to [B, positions, heads, rows, rows] "
            f"= {scores}"
        )
    if mask.requires_grad:
        raise GradientError("a mask has no gradient here: use attention with a bias")


# --- registration ----------------------------------------------------------------------------


def _segment(
    group: str, attend: int, sizes: Sequence[int], pull: bool, push: bool, causal: bool,
    scale: float, chunks: int, in_order: bool, stage: str, link: float,
) -> Segment:  # fmt: skip
    return Segment(
        group, attend, (sizes[0], sizes[1]), pull, push, causal, scale, chunks, in_order, stage,
        link,
    )  # fmt: skip


def _forward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, keep: bool, *segment: Any
) -> tuple[Tensor, ...]:
    return cpu.forward(q, k, v, mask, _segment(*segment), keep)


def _fake(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, keep: bool, *segment: Any
) -> tuple[Tensor, ...]:
    return cpu.empty_results(q, k, v, _segment(*segment), keep)


def _backward(
    d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, out: Tensor,
    lse: Tensor, *segment: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    return cpu.backward(d_out, q, k, v, mask, out, lse, _segment(*segment))


def _fake_backward(
    d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, out: Tensor,
    lse: Tensor, *segment: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    return cpu.empty_gradients(q, k, v, _segment(*segment))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, mask, _, *segment = inputs
    out, lse, saved_out, *saved = output
    ctx.mark_non_differentiable(lse, saved_out, *saved)
    ctx.set_materialize_grads(False)
    ctx.segment = segment
    s = _segment(*segment)
    whole = saved if s.pull else (q, k, v)
    ctx.save_for_backward(*whole, mask, saved_out if s.push else out, lse)


def _gradients(ctx: Any, d_out: Tensor | None, *_: Any) -> tuple[Any, ...]:
    none = (None,) * (2 + _SEGMENT_FIELDS)
    if d_out is None:
        return (None, None, None, *none)
    q, k, v, mask, out, lse = ctx.saved_tensors
    s = _segment(*ctx.segment)
    if not s.pull:
        q, k, v = s.whole(q), s.whole(k), s.whole(v)
    if not s.push:
        out = s.whole(out)
    found = torch.ops.perfkit.switch_attention_backward(
        d_out, q, k, v, mask, out, lse, *ctx.segment
    )
    return (*found, *none)


_LIBRARY.impl("switch_attention", _forward, "CPU")
_LIBRARY.impl("switch_attention_backward", _backward, "CPU")
torch.library.register_fake("perfkit::switch_attention", _fake, lib=_LIBRARY)
torch.library.register_fake("perfkit::switch_attention_backward", _fake_backward, lib=_LIBRARY)
torch.library.register_autograd(
    "perfkit::switch_attention", _gradients, setup_context=_save, lib=_LIBRARY
)
