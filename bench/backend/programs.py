"""Micro programs: small functions where the order of loops decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Prepared:
    """Something to run: a function, its arguments, what its gradients are taken for; the same in
    float64; and the names of the arguments where they are passed by name."""

    run: Callable[..., Any]
    arguments: tuple[Tensor, ...]
    leaves: list[Tensor]
    exact: Callable[..., Any]
    exact_arguments: tuple[Tensor, ...]
    exact_leaves: list[Tensor]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Program:
    """A function with example arguments; ``trains`` when a backward pass makes sense."""

    run: Callable[..., Any]
    arguments: Callable[[torch.Generator, bool], tuple[Tensor, ...]]
    trains: bool = True

    def prepare(self, generator: torch.Generator, tiny: bool, dtype: torch.dtype) -> Prepared:
        """The function for ``dtype`` and, with the same numbers, float64."""
        plain = [t.to(dtype) for t in self.arguments(generator, tiny)]
        narrow = [t.requires_grad_() for t in plain]
        wide = [t.detach().double().requires_grad_() for t in plain]
        return Prepared(self.run, tuple(narrow), narrow, self.run, tuple(wide), wide)


def _randn(*shape: int) -> Callable[[torch.Generator], Tensor]:
    return lambda generator: torch.randn(*shape, generator=generator)


def _arguments(
    large: tuple[tuple[int, ...], ...], small: tuple[tuple[int, ...], ...]
) -> Callable[[torch.Generator, bool], tuple[Tensor, ...]]:
    def make(generator: torch.Generator, tiny: bool) -> tuple[Tensor, ...]:
        return tuple(_randn(*s)(generator) for s in (small if tiny else large))

    return make


def jacobi(x: Tensor) -> Tensor:
    for _ in range(8):
        x = 0.2 * (x[1:-1, 1:-1] + x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:])
    return x


def heat_1d(x: Tensor) -> Tensor:
    for _ in range(16):
        x = x[1:-1] + 0.2 * (x[:-2] - 2.0 * x[1:-1] + x[2:])
    return x


def blur_sharpen(x: Tensor) -> Tensor:
    rows = (x[:, :-4] + 4 * x[:, 1:-3] + 6 * x[:, 2:-2] + 4 * x[:, 3:-1] + x[:, 4:]) / 16
    blur = (rows[:-4] + 4 * rows[1:-3] + 6 * rows[2:-2] + 4 * rows[3:-1] + rows[4:]) / 16
    middle = x[2:-2, 2:-2]
    return torch.where((middle - blur).abs() < 0.1, middle, 1.5 * middle - 0.5 * blur)


def small_products(a: Tensor, b: Tensor) -> Tensor:
    return F.gelu(a @ b).sum()


def rotations(r: Tensor, t: Tensor, p: Tensor) -> Tensor:
    return torch.relu(r @ p + t) * 0.5


def softmax_rows(x: Tensor) -> Tensor:
    return torch.softmax(x, -1)


def log_softmax_scaled(x: Tensor) -> Tensor:
    return torch.log_softmax(x * 0.7, -1)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), weight, bias)


def rms_norm_gated(x: Tensor, gate: Tensor, weight: Tensor) -> Tensor:
    scale = torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)
    return x * scale * weight * F.silu(gate)


def scaled_cumsum(x: Tensor) -> Tensor:
    return torch.exp(torch.cumsum(x * 0.01, -1) * 0.1)


def cumsum_columns(x: Tensor) -> Tensor:
    return torch.cumsum(torch.tanh(x), 0) * 0.5


def running_mean(x: Tensor) -> Tensor:
    count = torch.arange(1, x.shape[-1] + 1)
    return x - torch.cumsum(x, -1) / count


def decayed_sum(x: Tensor, decay: Tensor) -> Tensor:
    """A linear recurrence, h[t] = d[t] h[t - 1] + x[t], by its closed form."""
    log = torch.cumsum(F.logsigmoid(decay), -1)
    return torch.exp(log) * torch.cumsum(x * torch.exp(-log), -1)


def _slow_decay(generator: torch.Generator, tiny: bool) -> tuple[Tensor, Tensor]:
    """Decays near 0.98 per step, for which the closed form stays far from overflow."""
    shape = (33, 64) if tiny else (8192, 512)
    x, decay = _randn(*shape)(generator), _randn(*shape)(generator)
    return x, 4.0 + 0.5 * decay


def transpose_reduce(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x.t() * 2.0 + 1.0
    return y.sum(0), (y * y).sum(1)


def attention_bias(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def small_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(-1, -2) * 0.25, -1) @ v


PROGRAMS: Mapping[str, Program] = {
    "jacobi": Program(jacobi, _arguments(((2048, 2048),), ((300, 310),))),
    "heat-1d": Program(heat_1d, _arguments(((1 << 22,),), ((70_000,),))),
    "blur-sharpen": Program(blur_sharpen, _arguments(((2048, 2048),), ((300, 310),))),
    "small-products": Program(
        small_products, _arguments(((50_000, 16, 16),) * 2, ((200, 16, 16),) * 2)
    ),
    "rotations": Program(
        rotations,
        _arguments(((100_000, 3, 3), (100_000, 3, 1), (100_000, 3, 8)),
                   ((300, 3, 3), (300, 3, 1), (300, 3, 8))),
    ),
    "softmax": Program(softmax_rows, _arguments(((4096, 4096),), ((33, 70),))),
    "log-softmax": Program(log_softmax_scaled, _arguments(((4096, 4096),), ((33, 70),))),
    "layer-norm": Program(
        layer_norm, _arguments(((8192, 1024), (1024,), (1024,)), ((30, 64), (64,), (64,)))
    ),
    "rms-norm-gated": Program(
        rms_norm_gated,
        _arguments(((8192, 1024), (8192, 1024), (1024,)), ((30, 64), (30, 64), (64,))),
    ),
    "scaled-cumsum": Program(scaled_cumsum, _arguments(((4096, 4096),), ((33, 70),))),
    "cumsum-columns": Program(cumsum_columns, _arguments(((4096, 4096),), ((33, 70),))),
    "running-mean": Program(running_mean, _arguments(((4096, 4096),), ((33, 70),))),
    "decayed-sum": Program(decayed_sum, _slow_decay),
    "transpose-reduce": Program(transpose_reduce, _arguments(((4096, 4096),), ((65, 70),))),
    "attention-bias": Program(
        attention_bias,
        _arguments(((8, 4, 256, 32),) * 3 + ((8, 4, 256, 256),),
                   ((2, 2, 16, 8),) * 3 + ((2, 2, 16, 16),)),
    ),
    "small-attention": Program(
        small_attention, _arguments(((4096, 16, 32),) * 3, ((40, 16, 32),) * 3)
    ),
}  # fmt: skip

__all__ = ["PROGRAMS", "Prepared", "Program"]
