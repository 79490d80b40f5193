"""Memory for large results.

The allocator takes new pages for a large tensor every time, and the first touch of each 4 KiB page
costs more than computing its elements: scaling 64 MiB takes 25 ms on new small pages, 9.4 ms on new
large ones, and 6.3 ms in memory that is there (measured). So a kernel asks Linux for large pages,
and takes the memory of its last result again when nobody else holds it any more.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

LARGE = 1 << 22
"""Bytes of a result from which large pages are asked for: two of them."""

LARGEST = 1 << 28
"""Bytes of a result up to which its memory is kept."""

ALONE = 2
"""Holders of memory that only the kernel holds: its tensor, and the question."""

PAGE = 1 << 12

_HUGEPAGE = 14
"""MADV_HUGEPAGE of Linux's madvise(2)."""


class Results:
    """Where one kernel puts its results.

    Of every large result the last memory stays allocated, until the kernel is dropped.
    """

    def __init__(self) -> None:
        self._last: dict[int, Tensor] = {}

    def empty(
        self, k: int, shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype
    ) -> Tensor:
        """A tensor, not filled, for result ``k``."""
        size = dtype.itemsize * (1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)))
        if not LARGE <= size <= LARGEST:
            return torch.empty_strided(shape, strides, dtype=dtype)
        # Taken out while it is looked at: another thread then finds none.
        block = self._last.pop(k, None)
        if block is None or block.numel() != size or _holders(block) > ALONE:
            block = torch.empty(size, dtype=torch.uint8)
            _advise()(block.data_ptr(), size)
        made = torch.empty(0, dtype=dtype).set_(block.untyped_storage(), 0, shape, strides)
        self._last[k] = block
        return made


def _holders(block: Tensor) -> int:
    """How many hold the memory: tensors, and the storage object that is asked."""
    count: int = torch._C._storage_Use_Count(block.untyped_storage()._cdata)
    return count


@functools.cache
def _advise() -> Callable[[int, int], Any]:
    """Asks for large pages below an address range; what is refused stays as it was."""
    if not sys.platform.startswith("linux"):
        return lambda start, size: None
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def ask(start: int, size: int) -> Any:
        first = -(-start // PAGE) * PAGE
        last = (start + size) // PAGE * PAGE
        return function(first, last - first, _HUGEPAGE)

    return ask


__all__ = ["LARGE", "Results"]
