"""The CPU attention kernels on torch tensors ``[..., heads, length, dim]``; no autograd here.

Tensors are read and written where they lie, whatever their strides. Results lie like
``[..., length, heads, dim]`` contiguous, so that merging the heads afterwards costs no copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from perfkit.errors import ExtensionMissing

try:
    from perfkit import _cpu
except ImportError as error:
    raise ExtensionMissing(
        f"perfkit._cpu cannot be imported ({error}): install perfkit with `pip install .`"
    ) from error

BATCH_DIMS = 4
MAX_HEAD_DIM = 256
KINDS = {torch.float32: 1, torch.bfloat16: 2, torch.bool: 3, torch.float16: 4}


def empty_result(like: Tensor, dim: int) -> Tensor:
    """Uninitialised ``[..., heads, length, dim]``, all but ``dim`` as in ``like``."""
    *batch, heads, length, _ = like.shape
    return like.new_empty((*batch, length, heads, dim)).transpose(-3, -2)


def empty_lse(q: Tensor) -> Tensor:
    return q.new_empty(q.shape[:-1], dtype=torch.float32)


def numbers(tensor: Tensor | None, shape: tuple[int, ...] | None = None) -> list[int]:
    """Address, kind and strides; ``shape`` is what it broadcasts to."""
    if tensor is None:
        return []
    if shape is not None:
        tensor = tensor.expand(shape)
    strides = list(tensor.stride())
    padding = [0] * (BATCH_DIMS + 3 - len(strides))
    return [tensor.data_ptr(), KINDS[tensor.dtype], *padding, *strides]


def lse_numbers(lse: Tensor) -> list[int]:
    return numbers(lse.unsqueeze(-1))


def _sizes(q: Tensor, k: Tensor, v: Tensor) -> list[int]:
    batch = list(q.shape[:-3])
    padding = [1] * (BATCH_DIMS - len(batch))
    lengths = [q.shape[-3], k.shape[-3], q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1]]
    return [*padding, *batch, *lengths]


def _inputs(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None
) -> list[list[int]]:
    scores = (*q.shape[:-1], k.shape[-2])
    return [numbers(q), numbers(k), numbers(v), numbers(mask, scores), numbers(bias, scores)]


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    causal: bool,
    scale: float,
    *,
    threads: int | None = None,
    isa: str = "",
) -> tuple[Tensor, Tensor]:
    """Output ``[..., heads, queries, value dim]``; log-sum-exp ``[..., heads, queries]``, fp32."""
    out, lse = empty_result(q, v.shape[-1]), empty_lse(q)
    _cpu.attention_forward(
        _sizes(q, k, v),
        scale,
        causal,
        threads or torch.get_num_threads(),
        [*_inputs(q, k, v, mask, bias), numbers(out), lse_numbers(lse)],
        isa,
    )
    return out, lse


def backward(
    d_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    out: Tensor,
    lse: Tensor,
    causal: bool,
    scale: float,
    need_bias: bool,
    *,
    threads: int | None = None,
    isa: str = "",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and bias; the last has no elements when it is not needed."""
    d_q, d_k = empty_result(q, q.shape[-1]), empty_result(k, k.shape[-1])
    d_v = empty_result(v, v.shape[-1])
    d_bias = q.new_zeros((0,), dtype=torch.float32)
    d_bias_numbers: list[int] = []
    if need_bias and bias is not None:
        d_bias = torch.zeros(bias.shape, dtype=torch.float32)
        d_bias_numbers = numbers(d_bias, (*q.shape[:-1], k.shape[-2]))
    # A gradient that autograd expanded from one number has strides of 0, which read as well.
    _cpu.attention_backward(
        _sizes(q, k, v),
        scale,
        causal,
        threads or torch.get_num_threads(),
        [
            *_inputs(q, k, v, mask, bias),
            numbers(out),
            lse_numbers(lse),
            numbers(d_out),
            numbers(d_q),
            numbers(d_k),
            numbers(d_v),
            d_bias_numbers,
        ],
        isa,
    )
    return d_q, d_k, d_v, d_bias if bias is None else d_bias.to(bias.dtype)
