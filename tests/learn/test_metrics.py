"""Metrics of predictions, on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from perfkit.learn.metrics import evaluate, ndcg1, ranks, regret, spearman

SECONDS = np.array([4.0, 1.0, 2.0, 8.0])


def test_ranks_share_ties() -> None:
    assert ranks(np.array([5.0, 1.0, 5.0, 7.0])).tolist() == [1.5, 0.0, 1.5, 3.0]


def test_a_perfect_order_has_no_regret() -> None:
    found = evaluate([SECONDS * 1.1], [SECONDS], [0])
    assert found["mape_mean"] == pytest.approx(10) == found["mape_median"]
    assert found["top1_regret"] == found["top10_regret"] == pytest.approx(0)
    assert found["spearman"] == pytest.approx(1) and found["ndcg1"] == pytest.approx(1)


def test_the_opposite_order_has_the_worst() -> None:
    assert spearman(-SECONDS, SECONDS) == pytest.approx(-1)
    assert regret(-SECONDS, SECONDS, 1) == 8.0 and regret(-SECONDS, SECONDS, 3) == 2.0
    assert ndcg1(-SECONDS, SECONDS, 4.0) == 0.0


def test_gains_are_logarithmic() -> None:
    predicted = np.array([4.0, 3.0, 1.0, 8.0])  # picks the one of 2 s; the best takes 1 s
    assert ndcg1(predicted, SECONDS, 4.0) == pytest.approx(0.5)
    assert ndcg1(predicted, SECONDS, 1.0) == 1.0  # nothing is faster than the original


def test_a_constant_prediction_has_no_rank() -> None:
    assert spearman(np.ones(4), SECONDS) == 0.0
    assert np.isnan(evaluate([], [], [])["spearman"])
