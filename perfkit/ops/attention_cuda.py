"""The CUDA attention kernels on torch tensors ``[..., heads, length, dim]``; no autograd here.

They run on the current stream of the tensors' device, allocate through torch only, and never
synchronise, so a CUDA graph can capture them. Results are deterministic, gradients too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from perfkit.errors import ExtensionMissing, KernelFailure
from perfkit.ops.attention_cpu import (
    BATCH_DIMS,
    empty_lse,
    empty_result,
    lse_numbers,
    numbers,
)

try:
    from perfkit import _cuda
except ImportError as error:
    _problem: str | None = str(error)
else:
    _problem = None

HEAD_DIMS = (32, 64, 72, 80, 96, 128)
DTYPES = (torch.bfloat16, torch.float16)


def require() -> None:
    """Raises ExtensionMissing when the kernels were not built."""
    if _problem is not None:
        raise ExtensionMissing(
            f"perfkit._cuda cannot be imported ({_problem}): install perfkit where nvcc is found "
            "(CUDA 12.8 or later), with PERFKIT_CUDA=on to see why it is left out"
        )


def _sizes(q: Tensor, k: Tensor) -> list[int]:
    batch = list(q.shape[:-3])
    padding = [1] * (BATCH_DIMS - len(batch))
    return [*padding, *batch, q.shape[-3], k.shape[-3], q.shape[-2], k.shape[-2], q.shape[-1]]


def _inputs(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None
) -> list[list[int]]:
    scores = (*q.shape[:-1], k.shape[-2])
    return [numbers(q), numbers(k), numbers(v), numbers(mask, scores), numbers(bias, scores)]


def _stream(tensor: Tensor) -> tuple[int, int]:
    """Device index and the handle of its current stream."""
    stream = torch.cuda.current_stream(tensor.device)
    return stream.device.index, stream.cuda_stream


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Output ``[..., heads, queries, dim]``; log-sum-exp ``[..., heads, queries]``, fp32."""
    require()
    out, lse = empty_result(q, v.shape[-1]), empty_lse(q)
    tensors = [*_inputs(q, k, v, mask, bias), numbers(out), lse_numbers(lse)]
    try:
        _cuda.attention_forward(*_stream(q), _sizes(q, k), scale, causal, tensors)
    except RuntimeError as error:
        raise KernelFailure(str(error)) from error
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and bias; the last has no elements when it is not needed.

    The gradient of a bias is written for every score in fp32 and then summed over what the bias
    broadcasts over: 4 bytes a score while it runs.
    """
    require()
    d_q, d_k = empty_result(q, q.shape[-1]), empty_result(k, k.shape[-1])
    d_v = empty_result(v, v.shape[-1])
    delta = torch.empty_like(lse)
    d_scores = None
    if need_bias and bias is not None:
        d_scores = lse.new_zeros((*q.shape[:-1], k.shape[-2]))
    tensors = [
        *_inputs(q, k, v, mask, bias),
        numbers(out),
        lse_numbers(lse),
        numbers(d_out),
        numbers(d_q),
        numbers(d_k),
        numbers(d_v),
        lse_numbers(delta),
        numbers(d_scores),
    ]
    try:
        _cuda.attention_backward(*_stream(q), _sizes(q, k), scale, causal, tensors)
    except RuntimeError as error:
        raise KernelFailure(str(error)) from error
    if d_scores is None or bias is None:
        return d_q, d_k, d_v, lse.new_zeros((0,))
    return d_q, d_k, d_v, d_scores.sum_to_size(bias.shape).to(bias.dtype)
