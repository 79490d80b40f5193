"""A small fixed share of the fuzz, and proof that it can fail."""

from __future__ import annotations

import pytest

from tests.fuzz.check import run_case
from tests.fuzz.plants import PLANTS, planted


@pytest.mark.parametrize("seed", range(20))
def test_case(seed: int) -> None:
    outcome = run_case(seed)
    assert not outcome.failures, outcome.reproducer()


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTS)
def test_planted_bugs_are_found(plant: str) -> None:
    with planted(plant):
        assert any(run_case(seed).failures for seed in range(60))
