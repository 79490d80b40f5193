"""Tensors to flat buffers and back: one pass over the memory on each side, or none.

A flat buffer holds, for each rank in order, that rank's slice of one dimension, each slice
contiguous. Balanced shards have at most two lengths, so a relayout is at most two strided copies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def is_flat(shape: Sequence[int], dim: int) -> bool:
    """Whether the slices of ``dim`` lie one after the other in a contiguous tensor."""
    return math.prod(shape[:dim]) == 1


def pack(x: Tensor, dim: int, lengths: Sequence[int], fresh: bool = False) -> Tensor:
    """The slices of ``x`` along ``dim``, of the given lengths, as one flat buffer.

    Shares the memory of ``x`` where its slices are contiguous already, unless ``fresh``. ``x`` may
    have any strides; ``sum(lengths) == x.shape[dim]``.
    """
    plain = not (x.is_conj() or x.is_neg())
    if is_flat(x.shape, dim) and x.is_contiguous() and plain and not fresh:
        # Not view(-1): a tensor of one element may keep a stride other than 1.
        return x.as_strided((x.numel(),), (1,))
    flat = torch.empty(x.numel(), dtype=x.dtype, device=x.device)
    for there, here in _runs(x, flat, dim, lengths):
        there.copy_(here)
    return flat


def unpack(
    flat: Tensor, shape: Sequence[int], dim: int, lengths: Sequence[int], fresh: bool = False
) -> Tensor:
    """The tensor of ``shape`` whose slices along ``dim`` a flat buffer holds: pack's inverse.

    Contiguous; shares the memory of ``flat`` where the slices are in place, unless ``fresh``.
    """
    if is_flat(shape, dim):
        return flat.clone().view(*shape) if fresh else flat.view(*shape)
    x = torch.empty(tuple(shape), dtype=flat.dtype, device=flat.device)
    for there, here in _runs(x, flat, dim, lengths):
        here.copy_(there)
    return x


def _runs(
    x: Tensor, flat: Tensor, dim: int, lengths: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """(view of flat, view of x) of equal shape for each run of slices of one length."""
    row = math.prod(x.shape[:dim]) * math.prod(x.shape[dim + 1 :])
    start = at = 0
    while at < len(lengths):
        length, first = lengths[at], at
        while at < len(lengths) and lengths[at] == length:
            at += 1
        count = at - first
        total = count * length
        if total * row:
            here = x.narrow(dim, start, total).unflatten(dim, (count, length)).movedim(dim, 0)
            yield flat.narrow(0, start * row, total * row).view(here.shape), here
        start += total
