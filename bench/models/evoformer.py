"""The trunk of AlphaFold 2: row and column attention over an alignment, triangle updates of pairs.

Jumper et al., "Highly accurate protein structure prediction with AlphaFold", Nature 596, 2021,
supplement, algorithms 6 to 15 (gating and dropout left as in the paper, chunking left out).
Alignment ``m[B, s, r, c]``, pairs ``z[B, r, r, p]``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class GatedAttention(nn.Module):
    """Attention over the second-last dimension of ``x[..., n, C]`` with a gate and a bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.gate = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``bias[B, heads, n, n]`` is added to the scores of all lines of ``x[B, lines, n, C]``."""
        batch, lines, count, width = x.shape
        x = self.norm(x)
        qkv = self.qkv(x).view(batch, lines, count, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)
        mask = None if bias is None else bias[:, None]
        y = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        y = y.transpose(2, 3).reshape(batch, lines, count, width)
        return self.out(torch.sigmoid(self.gate(x)) * y)


class TriangleMultiplication(nn.Module):
    """Algorithms 11 (outgoing) and 12 (incoming)."""

    def __init__(self, width: int, outgoing: bool) -> None:
        super().__init__()
        self.equation = "bikc,bjkc->bijc" if outgoing else "bkic,bkjc->bijc"
        self.norm = nn.LayerNorm(width)
        self.left, self.right = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.gate = nn.Linear(width, width)
        self.norm_out = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)

    def forward(self, z: Tensor) -> Tensor:
        z = self.norm(z)
        left, right = nn.functional.glu(self.left(z)), nn.functional.glu(self.right(z))
        product = torch.einsum(self.equation, left, right)
        return torch.sigmoid(self.gate(z)) * self.out(self.norm_out(product))


class TriangleAttention(nn.Module):
    """Algorithms 13 (around the starting node) and 14 (the ending node)."""

    def __init__(self, width: int, heads: int, starting: bool) -> None:
        super().__init__()
        self.starting = starting
        self.attention = GatedAttention(width, heads)
        self.bias = nn.Linear(width, heads, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        z = z if self.starting else z.transpose(1, 2)
        y = self.attention(z, self.bias(z).permute(0, 3, 1, 2))
        return y if self.starting else y.transpose(1, 2)


class OuterProductMean(nn.Module):
    """Algorithm 10."""

    def __init__(self, width: int, pair_width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.left, self.right = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.out = nn.Linear(hidden * hidden, pair_width)

    def forward(self, m: Tensor) -> Tensor:
        m = self.norm(m)
        product = torch.einsum("bsic,bsjd->bijcd", self.left(m), self.right(m)) / m.shape[1]
        return self.out(product.flatten(-2))


def transition(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
    )


class EvoformerBlock(nn.Module):
    """Algorithm 6."""

    def __init__(self, width: int, pair_width: int, heads: int) -> None:
        super().__init__()
        self.pair_bias = nn.Sequential(
            nn.LayerNorm(pair_width), nn.Linear(pair_width, heads, bias=False)
        )
        self.rows = GatedAttention(width, heads)
        self.columns = GatedAttention(width, heads)
        self.transition_m = transition(width)
        self.outer = OuterProductMean(width, pair_width, 4)
        self.outgoing = TriangleMultiplication(pair_width, outgoing=True)
        self.incoming = TriangleMultiplication(pair_width, outgoing=False)
        self.starting = TriangleAttention(pair_width, heads, starting=True)
        self.ending = TriangleAttention(pair_width, heads, starting=False)
        self.transition_z = transition(pair_width)

    def forward(self, m: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        m = m + self.rows(m, self.pair_bias(z).permute(0, 3, 1, 2))
        m = m + self.columns(m.transpose(1, 2)).transpose(1, 2)
        m = m + self.transition_m(m)
        z = z + self.outer(m)
        z = z + self.outgoing(z)
        z = z + self.incoming(z)
        z = z + self.starting(z)
        z = z + self.ending(z)
        return m, z + self.transition_z(z)


class Evoformer(nn.Module):
    """A stack of blocks."""

    def __init__(self, width: int = 8, pair_width: int = 4, heads: int = 2, depth: int = 1) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            EvoformerBlock(width, pair_width, heads) for _ in range(depth)
        )

    def forward(self, m: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            m, z = block(m, z)
        return m, z
