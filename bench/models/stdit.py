"""A spatial-temporal diffusion transformer: Open-Sora's STDiT with rotary time positions.

Zheng et al., "Open-Sora: Democratizing Efficient Video Production for All", arXiv 2412.20404,
section 3; blocks as in PixArt-alpha (arXiv 2310.00426): self-attention, cross-attention to text,
MLP, modulated by the timestep through one shared projection (adaLN-single). Rotary embedding:
Su et al., arXiv 2104.09864.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class Config:
    """Sizes. ``depth`` counts pairs of a spatial and a temporal block."""

    width: int = 64
    heads: int = 4
    depth: int = 2
    channels: int = 4
    patch: int = 2
    text_width: int = 32
    mlp: int = 4


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``x[B, ..., C]`` with shift and scale ``[B, C]``."""
    ones = (1,) * (x.ndim - 2)
    return x * (1 + scale.view(len(scale), *ones, -1)) + shift.view(len(shift), *ones, -1)


def rotate(x: Tensor) -> Tensor:
    """Rotary embedding of ``x[..., positions, D]``, D even."""
    positions, width = x.shape[-2:]
    rates = 10000.0 ** (-torch.arange(0, width, 2, dtype=x.dtype, device=x.device) / width)
    angles = torch.arange(positions, dtype=x.dtype, device=x.device)[:, None] * rates
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int, rotary: bool) -> None:
        super().__init__()
        self.heads, self.rotary = heads, rotary
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``x[N, positions, C]``, attending over positions."""
        count, positions, width = x.shape
        qkv = self.qkv(x).reshape(count, positions, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.rotary:
            q, k = rotate(q), rotate(k)
        y = scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(count, positions, width))


class CrossAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
        """``x[B, positions, C]`` attending to ``text[B, L, C]``; ``mask[B, L]`` is True to keep."""
        batch, positions, width = x.shape
        split = (self.heads, width // self.heads)
        q = self.query(x).view(batch, positions, *split).transpose(1, 2)
        k, v = self.key_value(text).view(batch, -1, 2, *split).permute(2, 0, 3, 1, 4).unbind(0)
        keep = None if mask is None else mask[:, None, None, :]
        y = scaled_dot_product_attention(q, k, v, attn_mask=keep)
        return self.out(y.transpose(1, 2).reshape(batch, positions, width))


class Block(nn.Module):
    """Attention along one axis of ``x[B, T, S, C]``, then to the text, then the MLP."""

    def __init__(self, config: Config, temporal: bool) -> None:
        super().__init__()
        self.temporal = temporal
        width = config.width
        self.norm_attention = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = SelfAttention(width, config.heads, rotary=temporal)
        self.cross = CrossAttention(width, config.heads)
        self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.mlp * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.mlp * width, width),
        )
        self.table = nn.Parameter(torch.randn(6, width) / math.sqrt(width))

    def forward(self, x: Tensor, text: Tensor, time: Tensor, mask: Tensor | None = None) -> Tensor:
        """``time[B, 6, C]`` is the shared projection of the timestep."""
        batch, frames, positions, width = x.shape
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (self.table + time).unbind(1)
        y = modulate(self.norm_attention(x), shift_a, scale_a)
        if self.temporal:
            y = y.transpose(1, 2).reshape(batch * positions, frames, width)
            y = self.attention(y).view(batch, positions, frames, width).transpose(1, 2)
        else:
            y = self.attention(y.reshape(batch * frames, positions, width))
            y = y.view(batch, frames, positions, width)
        x = x + gate_a[:, None, None] * y
        y = self.cross(x.reshape(batch, frames * positions, width), text, mask)
        x = x + y.view(batch, frames, positions, width)
        y = self.mlp(modulate(self.norm_mlp(x), shift_m, scale_m))
        return x + gate_m[:, None, None] * y


class STDiT(nn.Module):
    """Predicts noise: ``[B, channels, T, H, W]`` in and out."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config = config or Config()
        width, patch = config.width, config.patch
        self.patches = nn.Conv3d(config.channels, width, (1, patch, patch), (1, patch, patch))
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 6 * width))
        self.text = nn.Linear(config.text_width, width)
        self.spatial = nn.ModuleList(Block(config, temporal=False) for _ in range(config.depth))
        self.temporal = nn.ModuleList(Block(config, temporal=True) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, config.channels * patch * patch)

    def forward(
        self, x: Tensor, timestep: Tensor, text: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """``text[B, L, text width]``, ``mask[B, L]`` True to keep, ``timestep[B]``."""
        config = self.config
        x = self.patches(x)
        batch, width, frames, rows, columns = x.shape
        x = x.flatten(3).permute(0, 2, 3, 1)  # [B, T, S, C]
        x = x + self.positions(rows, columns, x)
        time = self.time(self.embedded(timestep, x)).view(batch, 6, width)
        text = self.text(text)
        for spatial, temporal in zip(self.spatial, self.temporal, strict=True):
            x = spatial(x, text, time, mask)
            x = temporal(x, text, time, mask)
        x = self.out(self.norm(x))
        patch = config.patch
        x = x.view(batch, frames, rows, columns, config.channels, patch, patch)
        x = x.permute(0, 4, 1, 2, 5, 3, 6)
        return x.reshape(batch, config.channels, frames, rows * patch, columns * patch)

    def embedded(self, timestep: Tensor, like: Tensor) -> Tensor:
        """Sinusoidal embedding ``[B, width]``."""
        half = self.config.width // 2
        rates = torch.exp(-math.log(10000.0) * torch.arange(half, device=timestep.device) / half)
        angles = timestep[:, None].to(rates.dtype) * rates
        return torch.cat((angles.cos(), angles.sin()), dim=1).to(like.dtype)

    def positions(self, rows: int, columns: int, like: Tensor) -> Tensor:
        """Sinusoidal positions ``[rows * columns, width]``."""
        quarter = self.config.width // 4
        rates = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
        y = torch.arange(rows, dtype=torch.float64)[:, None, None] * rates
        x = torch.arange(columns, dtype=torch.float64)[None, :, None] * rates
        y, x = y.expand(rows, columns, -1), x.expand(rows, columns, -1)
        table = torch.cat((y.sin(), y.cos(), x.sin(), x.cos()), dim=-1)
        return table.reshape(rows * columns, -1).to(like)
