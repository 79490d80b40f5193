"""Gradient-boosted regression trees over pooled features, evaluated on arrays.

They correct the analytic model: their sum is added to the logarithm of its seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perfkit.cost.pooling import pooled
from perfkit.cost.tokens import Tokens

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Boosted:
    """All trees one after the other.

    Node n goes left when ``feature[n]`` of the row is at most ``threshold[n]``; a leaf has
    ``left[n] == n`` and adds ``value[n]``. ``roots`` holds the first node of every tree.
    """

    feature: Array
    threshold: Array
    left: Array
    right: Array
    value: Array
    roots: Array
    base: float

    def predict(self, tokens: Sequence[Tokens]) -> Array:
        guesses = np.asarray([t.guess for t in tokens])
        return guesses + self.evaluate(np.stack([pooled(t) for t in tokens]))

    def evaluate(self, rows: Array) -> Array:
        """float64 [rows] for float32 [rows, features]."""
        at = np.repeat(self.roots[None, :], len(rows), 0)
        index = np.arange(len(rows))[:, None]
        while True:
            goes_left = rows[index, self.feature[at]] <= self.threshold[at]
            after = np.where(goes_left, self.left[at], self.right[at])
            if np.array_equal(after, at):
                return self.base + self.value[at].sum(1)
            at = after

    def arrays(self) -> dict[str, Array]:
        fields = ("feature", "threshold", "left", "right", "value", "roots")
        return {**{n: getattr(self, n) for n in fields}, "base": np.array([self.base])}

    @staticmethod
    def of(arrays: Mapping[str, Array]) -> Boosted:
        named = dict(arrays)
        return Boosted(base=float(named.pop("base")[0]), **named)


__all__ = ["Boosted"]
