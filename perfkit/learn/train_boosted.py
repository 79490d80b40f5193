"""Training the boosted trees of :mod:`perfkit.cost.model_boosted` (needs scikit-learn)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.ensemble import (  # type: ignore[import-untyped, import-not-found, unused-ignore]
    HistGradientBoostingRegressor,
)

from perfkit.cost.model_boosted import Boosted
from perfkit.cost.pooling import pooled
from perfkit.learn.examples import Group


def train(
    groups: Sequence[Group], seed: int, trees: int = 600, rate: float = 0.05, leaves: int = 24,
    least: int = 15, share: float = 0.3,
) -> Boosted:  # fmt: skip
    """Fit log(seconds / analytic seconds), every program weighing the same.

    A tree has at most so many ``leaves``, of at ``least`` so many schedules, and each of its splits
    sees a ``share`` of the features.
    """
    rows = np.stack([pooled(t) for g in groups for t in g.tokens])
    guesses = np.asarray([t.guess for g in groups for t in g.tokens])
    target = np.concatenate([g.target for g in groups]) - guesses
    weight = np.concatenate([np.full(len(g.tokens), 1 / len(g.tokens)) for g in groups])
    fitted = HistGradientBoostingRegressor(
        loss="squared_error", learning_rate=rate, max_iter=trees, max_leaf_nodes=leaves,
        min_samples_leaf=least, l2_regularization=1.0, max_features=share, random_state=seed,
        early_stopping=False,
    ).fit(rows, target, weight)  # fmt: skip
    return flatten(fitted)


def flatten(fitted: Any) -> Boosted:
    """A fitted scikit-learn model as plain arrays."""
    names = ("feature", "threshold", "left", "right", "value")
    parts: dict[str, list[Any]] = {n: [] for n in names}
    roots, offset = [], 0
    for (tree,) in fitted._predictors:
        nodes = tree.nodes
        own = np.arange(len(nodes)) + offset
        leaf = nodes["is_leaf"].astype(bool)
        parts["feature"].append(np.where(leaf, 0, nodes["feature_idx"]))
        parts["threshold"].append(np.where(leaf, 0.0, nodes["num_threshold"]))
        parts["left"].append(np.where(leaf, own, nodes["left"] + offset))
        parts["right"].append(np.where(leaf, own, nodes["right"] + offset))
        parts["value"].append(np.where(leaf, nodes["value"], 0.0))
        roots.append(offset)
        offset += len(nodes)
    joined = {n: np.concatenate(p) for n, p in parts.items()}
    return Boosted(
        joined["feature"].astype(np.int32), joined["threshold"].astype(np.float64),
        joined["left"].astype(np.int32), joined["right"].astype(np.int32),
        joined["value"].astype(np.float64), np.asarray(roots, np.int32),
        float(np.ravel(fitted._baseline_prediction)[0]),
    )  # fmt: skip


__all__ = ["flatten", "train"]
