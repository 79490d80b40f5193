"""A schedule as the learned cost model takes it: a tree of tokens, each a row of features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from perfkit.cost.columns import KINDS

Array = np.ndarray[Any, Any]

LEAST = -30.0
"""Natural log of the seconds over the roofline that stand for "none"."""


@dataclass(frozen=True)
class Tokens:
    """A schedule for the model.

    Attributes:
        rows: per kind of KINDS, float32 [count, WIDTHS[kind]].
        parent: int64 [tokens]; tokens are numbered kind by kind, the program (0) is its own.
        terms: float32 [tokens]; natural log of a token's part of the analytic model's seconds over
            the roofline: statements and loops, and the program's waiting; LEAST for accesses.
        roofline: seconds that predictions are relative to.
    """

    rows: Mapping[str, Array]
    parent: Array
    terms: Array
    roofline: float

    @property
    def count(self) -> int:
        return len(self.parent)

    @property
    def kinds(self) -> Array:
        """int64 [tokens], index into KINDS."""
        return np.repeat(np.arange(len(KINDS)), [len(self.rows[k]) for k in KINDS])

    @property
    def guess(self) -> float:
        """Natural log of the analytic model's seconds over the roofline."""
        return float(np.log(np.exp(self.terms.astype(np.float64)).sum()))


RELATIONS = ("self", "above", "below", "sibling", "apart")


def relations(parent: Array) -> Array:
    """int64 [tokens, tokens]: how token j stands to token i, an index into RELATIONS."""
    n = len(parent)
    above = np.zeros((n, n), bool)
    at = parent.copy()
    rows = np.arange(n)
    for _ in range(n):
        above[rows, at] = True
        if not at.any():
            break
        at = parent[at]
    found = np.full((n, n), RELATIONS.index("apart"), np.int64)
    found[parent[:, None] == parent[None, :]] = RELATIONS.index("sibling")
    found[above] = RELATIONS.index("above")
    found[above.T] = RELATIONS.index("below")
    found[rows, rows] = RELATIONS.index("self")
    return found


__all__ = ["LEAST", "RELATIONS", "Tokens", "relations"]
