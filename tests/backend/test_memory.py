"""Memory of large results: taken again only when nobody else holds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from perfkit.backend.memory import LARGE, Results  # noqa: E402

ROWS, COLUMNS = 1030, LARGE // 4096
SHAPE, STRIDES = (ROWS, COLUMNS), (COLUMNS, 1)


def test_memory_that_nobody_holds_is_taken_again() -> None:
    results = Results()
    first = results.empty(0, SHAPE, STRIDES, torch.float32)
    assert first.shape == SHAPE and first.stride() == STRIDES and first.dtype == torch.float32
    place = first.data_ptr()
    first.fill_(1)
    del first
    assert results.empty(0, SHAPE, STRIDES, torch.float32).data_ptr() == place


HOLDS: dict[str, Callable[[Any], Any]] = {
    "tensor": lambda t: t, "view": lambda t: t[3:, ::2], "numpy": lambda t: t.numpy(),
    "detached": lambda t: t.detach().t(), "dlpack": torch.from_dlpack,
}  # fmt: skip


@pytest.mark.parametrize("hold", HOLDS)
def test_what_is_held_stays(hold: str) -> None:
    results = Results()
    first = results.empty(0, SHAPE, STRIDES, torch.float32).fill_(1)
    held = HOLDS[hold](first)
    del first
    for _ in range(3):
        results.empty(0, SHAPE, STRIDES, torch.float32).fill_(2)
    assert bool((torch.as_tensor(held) == 1).all())


def test_other_sizes_and_results_have_memory_of_their_own() -> None:
    results = Results()
    a = results.empty(0, SHAPE, STRIDES, torch.float32)
    b = results.empty(1, SHAPE, STRIDES, torch.float32)
    c = results.empty(0, (2 * ROWS, COLUMNS), STRIDES, torch.float32)
    small = results.empty(0, (3, 4), (4, 1), torch.float32)
    assert len({t.data_ptr() for t in (a, b, c, small)}) == 4
