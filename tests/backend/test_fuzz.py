"""A few of the random graphs; ``python -m tests.backend.fuzz`` runs more."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from tests.backend import fuzz  # noqa: E402


@pytest.mark.parametrize("seed", range(4))
def test_random_graphs_equal_eager(seed: int) -> None:
    with torch._inductor.config.patch(force_disable_caches=True):
        assert fuzz.check(seed) == ""
