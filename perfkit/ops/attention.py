"""Attention as a torch operator: fake, autograd, autocast; kernels in ``csrc/cpu``, ``csrc/cuda``.

The algorithm is FlashAttention's (Dao et al., arXiv 2205.14135): tiles, an online softmax, and a
backward that recomputes the weights from the saved log-sum-exp, so no score matrix is stored.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from perfkit.errors import DeviceError, DtypeError, GradientError, RankError, SizeError
from perfkit.ops import attention_cpu as cpu
from perfkit.ops import attention_cuda as cuda

Layout = Literal["SHD", "HSD"]

_CPU_DTYPES = (torch.float32, torch.bfloat16)
_DTYPES = {"cpu": _CPU_DTYPES, "cuda": cuda.DTYPES, "meta": (*_CPU_DTYPES, torch.float16)}

# Kept for the life of the module: the operators vanish with it.
_LIBRARY = torch.library.Library("perfkit", "FRAGMENT")
_LIBRARY.define(
    "attention(Tensor q, Tensor k, Tensor v, Tensor? mask, Tensor? bias, bool causal, "
    "float scale) -> (Tensor, Tensor)"
)
_LIBRARY.define(
    "attention_backward(Tensor d_out, Tensor q, Tensor k, Tensor v, Tensor? mask, Tensor? bias, "
    "Tensor out, Tensor lse, bool causal, float scale, bool need_bias) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    *,
    scale: float | None = None,
    layout: Layout = "SHD",
) -> Tensor:
    """``softmax(scale * q k^T + mask + bias) v`` on the tensors' device, with gradients.

    Args:
        q: ``[..., queries, heads, dim]``, up to 4 leading dimensions, any strides. CPU: float32
            or bfloat16, ``dim`` up to 256. CUDA: bfloat16 or float16, ``dim`` 32, 64, 72, 80, 96
            or 128.
        k, v: ``[..., keys, kv heads, dim]`` and ``[..., keys, kv heads, value dim]``; the number
            of heads is a multiple of theirs (grouped queries), leading dimensions are equal.
        mask: broadcasts to ``[..., heads, queries, keys]``; boolean (True: attend) or added.
        bias: the same shape, added; has a gradient (the pair bias of an Evoformer).
        causal: query i sees the keys 0 to i.
        scale: default ``1 / sqrt(dim)``.
        layout: "HSD" for tensors ``[..., heads, length, dim]`` as torch's
            ``scaled_dot_product_attention`` takes them; the result has the same layout.

    Returns:
        Like ``q`` with ``value dim``. A row without any key is 0, as in torch.

    Raises:
        DtypeError, DeviceError, RankError, SizeError: the arguments do not fit each other.
        GradientError: a mask that asks for a gradient.
        ExtensionMissing: CUDA tensors, and perfkit was built without its CUDA kernels.
    """
    if layout not in ("SHD", "HSD"):
        raise RankError(f"layout={layout!r}: use 'SHD' or 'HSD'")
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.dim() < 3:
            raise RankError(f"{name} has {tensor.dim()} dimensions, at least 3 are needed")
    if layout == "SHD":
        q, k, v = q.transpose(-3, -2), k.transpose(-3, -2), v.transpose(-3, -2)
    check_arguments(q, k, v, mask, bias)
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    out: Tensor = torch.ops.perfkit.attention(q, k, v, mask, bias, causal, scale)[0]
    return out.transpose(-3, -2) if layout == "SHD" else out


def check_arguments(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None
) -> None:
    """Refuse tensors ``[..., heads, length, dim]`` that do not fit each other."""
    given = {"q": q, "k": k, "v": v, "mask": mask, "bias": bias}
    device = q.device.type
    if device not in _DTYPES:
        raise DeviceError(f"q is on {q.device}; attention runs on the CPU and on CUDA devices")
    for name, tensor in given.items():
        if tensor is not None and tensor.device != q.device:
            raise DeviceError(f"{name} is on {tensor.device}, but q is on {q.device}")
    autocast = device != "meta" and torch.is_autocast_enabled(device)
    for name in ("q", "k", "v"):
        tensor = given[name]
        assert tensor is not None
        if tensor.dtype not in (_DTYPES["meta"] if autocast else _DTYPES[device]):
            kinds = " or ".join(str(kind).removeprefix("torch.") for kind in _DTYPES[device])
            raise DtypeError(f"{name} is {tensor.dtype}; use {kinds}")
        if tensor.dtype != q.dtype and not autocast:
            raise DtypeError(f"{name} is {tensor.dtype}, but q is {q.dtype}")
        if tensor.shape[:-3] != q.shape[:-3]:
            raise SizeError(
                f"the leading dimensions of {name} are {tuple(tensor.shape[:-3])}, "
                f"those of q {tuple(q.shape[:-3])}"
            )
    if q.dim() > cpu.BATCH_DIMS + 3:
        raise RankError(f"q has {q.dim() - 3} leading dimensions, at most {cpu.BATCH_DIMS}")
    if k.shape[-1] != q.shape[-1]:
        raise SizeError(f"the head dimension of k is {k.shape[-1]}, that of q {q.shape[-1]}")
    if v.shape[-3:-1] != k.shape[-3:-1]:
        raise SizeError(
            f"v has (heads, keys) {tuple(v.shape[-3:-1])}, k has {tuple(k.shape[-3:-1])}"
        )
    if device == "cuda":
        cuda.require()
        if q.shape[-1] not in cuda.HEAD_DIMS or v.shape[-1] != q.shape[-1]:
            raise SizeError(
                f"the head dimensions of q and v are {q.shape[-1]} and {v.shape[-1]}; on CUDA they "
                f"are equal and one of {', '.join(map(str, cuda.HEAD_DIMS))}"
            )
    for name, dim in (("q", q.shape[-1]), ("v", v.shape[-1])):
        if not 1 <= dim <= cpu.MAX_HEAD_DIM:
            raise SizeError(f"the head dimension of {name} is {dim}, not 1 to {cpu.MAX_HEAD_DIM}")
    if k.shape[-3] < 1 or q.shape[-3] % k.shape[-3]:
        raise SizeError(f"{q.shape[-3]} heads of q are no multiple of {k.shape[-3]} of k")
    scores = (*q.shape[:-1], k.shape[-2])
    added = (*_CPU_DTYPES, torch.float16) if device != "cpu" else _CPU_DTYPES
    for name, allowed in (("mask", (torch.bool, *added)), ("bias", added)):
        tensor = given[name]
        if tensor is None:
            continue
        if tensor.dtype not in allowed:
            raise DtypeError(f"{name} is {tensor.dtype}; use one of {', '.join(map(str, allowed))}")
        fits = tensor.dim() <= len(scores) and all(
            have in (1, want)
            for have, want in zip(reversed(tensor.shape), reversed(scores), strict=False)
        )
        if not fits:
            raise SizeError(
                f"{name} {tuple(tensor.shape)} does not broadcast to [..., heads, queries, keys] "
                f"= {scores}"
            )
    if mask is not None and mask.requires_grad:
        raise GradientError("a mask has no gradient: pass what is learned as bias")


def _fake(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return cpu.empty_result(q, v.shape[-1]), cpu.empty_lse(q)


def _fake_backward(
    d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None,
    out: Tensor, lse: Tensor, causal: bool, scale: float, need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    d_bias = q.new_empty((0,), dtype=torch.float32 if bias is None else bias.dtype)
    if need_bias and bias is not None:
        d_bias = torch.empty(bias.shape, dtype=bias.dtype, device=q.device)
    return (
        cpu.empty_result(q, q.shape[-1]),
        cpu.empty_result(k, k.shape[-1]),
        cpu.empty_result(v, v.shape[-1]),
        d_bias,
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, mask, bias, ctx.causal, ctx.scale = inputs
    out, lse = output
    ctx.mark_non_differentiable(lse)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, mask, bias, out, lse)


def _gradients(ctx: Any, d_out: Tensor | None, d_lse: Tensor | None) -> tuple[Any, ...]:
    if d_out is None:
        return (None,) * 7
    q, k, v, mask, bias, out, lse = ctx.saved_tensors
    need_bias = bias is not None and ctx.needs_input_grad[4]
    d_q, d_k, d_v, d_bias = torch.ops.perfkit.attention_backward(
        d_out, q, k, v, mask, bias, out, lse, ctx.causal, ctx.scale, need_bias
    )
    return d_q, d_k, d_v, None, d_bias if need_bias else None, None, None


_LIBRARY.impl("attention", cpu.forward, "CPU")
_LIBRARY.impl("attention_backward", cpu.backward, "CPU")
_LIBRARY.impl("attention", cuda.forward, "CUDA")
_LIBRARY.impl("attention_backward", cuda.backward, "CUDA")
torch.library.register_fake("perfkit::attention", _fake, lib=_LIBRARY)
torch.library.register_fake("perfkit::attention_backward", _fake_backward, lib=_LIBRARY)
torch.library.register_autograd("perfkit::attention", _gradients, setup_context=_save, lib=_LIBRARY)
# What autocast would do for scaled_dot_product_attention.
torch.library.register_autocast("perfkit::attention", "cpu", torch.bfloat16, lib=_LIBRARY)
torch.library.register_autocast("perfkit::attention", "cuda", torch.bfloat16, lib=_LIBRARY)
