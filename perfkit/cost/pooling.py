"""A schedule as one row of numbers, for models that take no trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from perfkit.cost.columns import ACCESS, KINDS, LOOP, STATEMENT, WIDTHS
from perfkit.cost.tokens import Tokens

Array = np.ndarray[Any, Any]

MISSING = -50.0
"""Stands for every feature of a statement, loop or access that a schedule does not have."""

INNERMOST = 3
"""Loops around the dearest statement that have columns, besides the outermost and marked ones."""

READS = 3
"""Reads of the dearest statement that have columns: those of the most cache lines."""


def pooled(tokens: Tokens) -> Array:
    """float32 [width]: one row per schedule.

    The program's features; per other kind the maximum, the minimum, the mean, and the mean over the
    token weighted by the statement's share of the predicted time; then the rows of the two dearest
    statements, and of the loops and accesses of the dearest.
    """
    return np.concatenate([_summary(tokens), _dearest(tokens)]).astype(np.float32)


def _summary(tokens: Tokens) -> Array:
    share = 2.0 ** tokens.rows["statement"][:, SHARE]
    first = 1 + len(tokens.rows["loop"])
    weight = np.zeros(tokens.count, np.float32)
    weight[first : first + len(share)] = share
    for k in range(first - 1, 0, -1):  # loops weigh what is inside; children come after parents
        weight[k] = weight[1:][tokens.parent[1:] == k].sum()
    start = first + len(share)
    weight[start:] = weight[tokens.parent[start:]]
    parts = [tokens.rows["program"][0]]
    offset = 1
    for kind in KINDS[1:]:
        rows = tokens.rows[kind]
        if not len(rows):
            parts.append(np.zeros(4 * WIDTHS[kind], np.float32))
            continue
        w = weight[offset : offset + len(rows)]
        mean = (rows * w[:, None]).sum(0) / max(float(w.sum()), 1e-9)
        parts += [rows.max(0), rows.min(0), rows.mean(0), mean]
        offset += len(rows)
    return np.concatenate(parts)


def _dearest(tokens: Tokens) -> Array:
    loops, statements, accesses = (tokens.rows[k] for k in KINDS[1:])
    order = np.argsort(-statements[:, SHARE], kind="stable")
    parts = [_row(statements, order[k : k + 1]) for k in range(2)]
    if not len(order):
        return np.concatenate([*parts, np.full(DEAREST - 2 * WIDTHS["statement"], MISSING)])
    token = 1 + len(loops) + int(order[0])
    around = _around(tokens, token)
    parts += [_row(loops, around[k : k + 1]) for k in range(INNERMOST)]
    parts.append(_row(loops, around[-1:]))
    parts.append(_row(loops, [k for k in reversed(around) if loops[k, PARALLEL] > 0]))
    parts += [_row(loops, [k for k in around if loops[k, mark] > 0]) for mark in (VECTOR, JAM)]
    own = np.flatnonzero(tokens.parent[1 + len(loops) + len(statements) :] == token).tolist()
    writes = [k for k in own if accesses[k, WRITE] > 0]
    reads = sorted((k for k in own if k not in writes), key=lambda k: -accesses[k, LINES])
    parts.append(_row(accesses, writes))
    parts += [_row(accesses, reads[k : k + 1]) for k in range(READS)]
    return np.concatenate(parts)


def _around(tokens: Tokens, token: int) -> list[int]:
    """The loops around a token, innermost first."""
    found = []
    at = int(tokens.parent[token])
    while at:
        found.append(at - 1)
        at = int(tokens.parent[at])
    return found


def _row(rows: Array, places: Sequence[int] | Array) -> Array:
    """The first of some rows."""
    return rows[places[0]] if len(places) else np.full(rows.shape[1], MISSING, np.float32)


def _place(columns: Sequence[str], name: str) -> int:
    return next(k for k, text in enumerate(columns) if text.partition(":")[0] == name)


SHARE = _place(STATEMENT, "share")
PARALLEL, VECTOR, JAM = (_place(LOOP, name) for name in ("parallel", "vector", "jam"))
WRITE, LINES = _place(ACCESS, "write"), _place(ACCESS, "lines0")

DEAREST = (
    2 * WIDTHS["statement"] + (INNERMOST + 4) * WIDTHS["loop"] + (1 + READS) * WIDTHS["access"]
)


def pooled_width() -> int:
    return WIDTHS["program"] + 4 * sum(WIDTHS[k] for k in KINDS[1:]) + DEAREST


__all__ = ["DEAREST", "MISSING", "pooled", "pooled_width"]
