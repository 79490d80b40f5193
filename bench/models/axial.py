"""An axial transformer: attention along rows, then along columns, of an image.

Ho et al., "Axial Attention in Multidimensional Transformers", arXiv 1912.12180, section 3.
"""

from __future__ import annotations

from torch import Tensor, nn


class AxialBlock(nn.Module):
    """Pre-norm attention along one of the two axes of ``x[B, H, W, C]``, then an MLP."""

    def __init__(self, width: int, heads: int, along_rows: bool) -> None:
        super().__init__()
        self.along_rows = along_rows
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        y = y if self.along_rows else y.transpose(1, 2)
        flat = y.flatten(0, 1)
        attended, _ = self.attention(flat, flat, flat, need_weights=False)
        y = attended.unflatten(0, y.shape[:2])
        x = x + (y if self.along_rows else y.transpose(1, 2))
        return x + self.mlp(x)


class AxialTransformer(nn.Module):
    """``[B, H, W, C]`` in and out; ``depth`` pairs of a row and a column block."""

    def __init__(self, width: int = 16, heads: int = 2, depth: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            AxialBlock(width, heads, along_rows)
            for _ in range(depth)
            for along_rows in (True, False)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x
