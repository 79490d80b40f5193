"""How good predictions are: errors, ranks, and what following them would cost.

All are per program over its measured schedules, then averaged over programs (geometrically for
regrets), except for the absolute percentage errors, which are over all schedules together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
METRICS = ("mape_mean", "mape_median", "top1_regret", "top10_regret", "spearman", "ndcg1")


def ranks(values: Array) -> Array:
    """float64 [n]: places from 0, equal values share their mean place."""
    order = np.argsort(values, kind="stable")
    found = np.empty(len(values))
    found[order] = np.arange(len(values))
    _, group = np.unique(values, return_inverse=True)
    return (np.bincount(group, found) / np.bincount(group))[group]


def spearman(predicted: Array, seconds: Array) -> float:
    """Rank correlation; 0 where either does not vary."""
    a, b = ranks(predicted), ranks(seconds)
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def regret(predicted: Array, seconds: Array, count: int) -> float:
    """Time of the best of the ``count`` best-looking over the best of all, at least 1."""
    chosen = np.argsort(predicted, kind="stable")[:count]
    return float(seconds[chosen].min() / seconds.min())


def ndcg1(predicted: Array, seconds: Array, baseline: float) -> float:
    """Log speedup of the best-looking schedule over that of the best; 1 where nothing is faster."""
    best = np.log(baseline / seconds.min())
    if best <= 0.02:
        return 1.0
    return float(max(0.0, np.log(baseline / seconds[np.argmin(predicted)])) / best)


def evaluate(
    predicted: Sequence[Array], seconds: Sequence[Array], originals: Sequence[int]
) -> dict[str, float]:
    """Every metric of METRICS; regrets and errors in per cent.

    Args:
        predicted, seconds: per program, float [schedules].
        originals: per program, the position of the original order, -1 when it is missing.
    """
    if not predicted:
        return dict.fromkeys(METRICS, float("nan"))
    errors = np.concatenate([np.abs(p - s) / s for p, s in zip(predicted, seconds, strict=True)])
    pairs = list(zip(predicted, seconds, originals, strict=True))
    first = [np.log(regret(p, s, 1)) for p, s, _ in pairs]
    tenth = [np.log(regret(p, s, 10)) for p, s, _ in pairs]
    gains = [ndcg1(p, s, s[o] if o >= 0 else s.max()) for p, s, o in pairs]
    return {
        "mape_mean": 100 * float(errors.mean()),
        "mape_median": 100 * float(np.median(errors)),
        "top1_regret": 100 * float(np.expm1(np.mean(first))),
        "top10_regret": 100 * float(np.expm1(np.mean(tenth))),
        "spearman": float(np.mean([spearman(p, s) for p, s, _ in pairs])),
        "ndcg1": float(np.mean(gains)),
    }


__all__ = ["METRICS", "evaluate", "ndcg1", "ranks", "regret", "spearman"]
