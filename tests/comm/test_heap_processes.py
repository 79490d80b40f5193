"""The heap with real processes: random trials, deaths, the wrap of epochs."""

from __future__ import annotations

import pytest

from tests.protocol import trials


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_random_trials(ranks: int) -> None:
    before = set(trials.leftovers())
    assert trials.run_batch(1000 * ranks, 25, ranks) == []
    assert set(trials.leftovers()) <= before


@pytest.mark.parametrize("ranks", [2, 4])
def test_every_survivor_hears_of_a_death(ranks: int) -> None:
    before = set(trials.leftovers())
    for seed in range(3):
        answers = trials.run_killed(seed, ranks)
        assert len(answers) == ranks - 1
        assert set(answers) <= {"HeapTimeout", "HeapAborted"}
        assert "HeapTimeout" in answers, "somebody must have been the first"
    assert set(trials.leftovers()) <= before


def test_trials_cover_the_hard_cases() -> None:
    made = [trials.Trial.random(seed, 3) for seed in range(200)]
    assert any(trial.first_epoch == 2**64 - 3 and trial.epochs > 3 for trial in made)
    assert any(not any(trial.sizes[0]) for trial in made), "a rank that sends nothing"
    assert any(trial.push for trial in made) and not all(trial.push for trial in made)
    assert any(len({size for row in trial.sizes for size in row}) > 4 for trial in made)
