"""Attention along the sharded axis with both switches inside the call (:mod:`perfkit.ops`).

Where a stage is switch, attention, switch, the tensors around it can stay as they are: queries,
keys and values are exchanged for whole rows of this rank's positions, and the results go back,
all in one operator that computes what has arrived. It moves four tensors of the width where a
switch of the stage's input and one of its output move two, but through shared memory, beside the
arithmetic, and without packing. Positions are all dimensions in front of the heads together, so
no second axis needs to be known.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from perfkit import ops
from perfkit.comm.group import GroupLike, process_group_of
from perfkit.dsp.primitives import switch

_TYPES = (torch.float32, torch.bfloat16)


def fused_attention(
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

    Element types and devices without a fused kernel take the same steps one after the other.

    Args:
        q, k, v: ``[..., heads, positions of this rank, head dim]``, one number of heads; shards
            are balanced and may be empty. Three dimensions are a batch without heads.
        causal: position i sees the positions 0 to i of the whole sequence.
        scale: default ``1 / sqrt(head dim)``.

    Returns:
        ``[..., heads, positions of this rank, head dim of v]``.

    Raises:
        SwitchError, SizeError: shapes that do not fit each other, or a shard that is not balanced.
        CollectiveError, HeapTimeout, HeapAborted: a rank died or disagreed.
    """
    lead = q.shape[:-2]
    heads = lead[-1] if len(lead) > 1 else 1
    others = math.prod(lead) // heads if heads else 0
    # [1, rows, others, heads, dim]: views, whatever lies in front of the heads.
    q, k, v = (
        x.reshape(others, heads, *x.shape[-2:]).permute(2, 0, 1, 3).unsqueeze(0) for x in (q, k, v)
    )
    if q.device.type == "cpu" and q.dtype in _TYPES:
        out = ops.switch_attention(
            q, k, v, group, from_dim=1, to_dim=2, sizes=(size, others), causal=causal,
            scale=scale, back=True, stage=stage,
        )  # fmt: skip
    else:
        out = _in_steps(q, k, v, group, size, others, causal, scale, stage)
    return out.squeeze(0).permute(1, 2, 0, 3).reshape(*lead, *out.shape[1:2], out.shape[-1])


def _in_steps(
    q: Tensor, k: Tensor, v: Tensor, group: GroupLike, size: int, others: int, causal: bool,
    scale: float | None, stage: str,
) -> Tensor:  # fmt: skip
    if process_group_of(group).size() > 1:
        q, k, v = (
            switch(x, group, from_dim=1, to_dim=2, size=size, stage=stage) for x in (q, k, v)
        )
    q, k, v = (x.permute(0, 2, 3, 1, 4) for x in (q, k, v))
    out = scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
    out = out.permute(0, 3, 1, 2, 4)
    if process_group_of(group).size() == 1:
        return out
    return switch(out, group, from_dim=2, to_dim=1, size=others, stage=stage)
