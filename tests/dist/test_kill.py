"""A killed rank is an error on the others, and never a hang; ``tests.dist.kill`` runs many."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from tests.dist import kill


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_survivors_of_a_killed_rank_get_an_error_that_names_rank_and_stage(seed: int) -> None:
    trial, survivors = kill.run(seed)
    assert len(survivors) == trial.world - 1


def test_these_trials_cover_both_modes_and_several_worlds() -> None:
    trials = [kill.Trial.random(seed) for seed in range(3)]
    assert {trial.checked for trial in trials} == {False, True}
    assert len({trial.world for trial in trials}) > 1
    assert trials[0] == kill.Trial.random(0)


@pytest.mark.slow
def test_a_hundred_trials() -> None:
    for seed in range(100):
        kill.run(seed)
