"""Attention in blocks of keys: results merged by log-sum-exp, gradients block by block.

The output over several blocks is the mean of the blocks' outputs, weighted by ``exp(lse)`` (Dao et
al., "FlashAttention", arXiv 2205.14135, section 3.1). The gradient of a block needs only the whole
row's output and log-sum-exp. On CPUs torch's flash kernel computes a block; elsewhere this module
does, with the scores of one block in memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WIDE = {torch.bfloat16: torch.float32, torch.float16: torch.float32}
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """The type in which sums of ``dtype`` are held."""
    return _WIDE.get(dtype, dtype)


class Merged:
    """The attention of some queries ``[..., heads, queries, dim]`` over blocks added so far."""

    def __init__(self, q: Tensor, value_dim: int, scale: float) -> None:
        wide = wide_type(q.dtype)
        self._q, self._scale = q, scale
        self._out = q.new_zeros((*q.shape[:-1], value_dim), dtype=wide)
        self._lse = q.new_full(q.shape[:-1], -torch.inf, dtype=wide)
        self._empty = True

    def add(self, k: Tensor, v: Tensor, causal: bool = False) -> None:
        """Another block of keys and values; ``causal`` if it starts where the queries do."""
        if not self._q.numel() or not k.shape[-2]:
            return
        out, lse = attend(self._q, k, v, self._scale, causal)
        if self._empty:
            self._out.copy_(out)
            self._lse.copy_(lse)
            self._empty = False
            return
        share = torch.sigmoid(lse - self._lse).unsqueeze(-1)
        self._out += (out - self._out) * share
        self._lse = torch.logaddexp(self._lse, lse)

    def result(self) -> tuple[Tensor, Tensor]:
        """Output in the queries' type, and log-sum-exp; 0 and minus infinity without any key."""
        return self._out.to(self._q.dtype), self._lse


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    """One block's output and log-sum-exp ``[..., heads, queries]``, of at least one key."""
    if q.device.type == "cpu" and q.shape[-1] == v.shape[-1]:
        out, lse = _flash(*_four(q, k, v), 0.0, causal, scale=scale)
        return out.view(*q.shape[:-1], -1), lse.reshape(q.shape[:-1])
    scores = _scores(q, k, scale, causal)
    lse = scores.logsumexp(-1)
    weights = torch.exp(scores - lse.unsqueeze(-1))
    return weights @ v.to(weights.dtype), lse


def attend_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from one block; ``out`` and ``lse`` are those of the whole rows."""
    if not q.numel() or not k.shape[-2]:
        return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    if q.device.type == "cpu" and q.shape[-1] == v.shape[-1]:
        four = _four(grad, q, k, v, out)
        logs = lse.reshape(-1, *lse.shape[-2:])
        found = _flash_backward(*four, logs, 0.0, causal, scale=scale)
        grad_q, grad_k, grad_v = found
        return grad_q.reshape(q.shape), grad_k.reshape(k.shape), grad_v.reshape(v.shape)
    weights = torch.exp(_scores(q, k, scale, causal) - lse.unsqueeze(-1))
    wide = grad.to(weights.dtype)
    delta = (wide * out).sum(-1, keepdim=True)
    slopes = weights * (wide @ v.to(wide.dtype).transpose(-1, -2) - delta) * scale
    return (
        slopes @ k.to(wide.dtype),
        slopes.transpose(-1, -2) @ q.to(wide.dtype),
        weights.transpose(-1, -2) @ wide,
    )


def _four(*tensors: Tensor) -> list[Tensor]:
    """As the flash kernel takes them: ``[batch, heads, positions, dim]``.

    It takes the last dimension's stride for 1 without a look.
    """
    plain = (x if x.stride(-1) == 1 else x.contiguous() for x in tensors)
    return [x.reshape(-1, *x.shape[-3:]) for x in plain]


def _scores(q: Tensor, k: Tensor, scale: float, causal: bool) -> Tensor:
    wide = wide_type(q.dtype)
    scores = q.to(wide) @ k.to(wide).transpose(-1, -2) * scale
    if causal:
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(ahead, -torch.inf)
    return scores
