"""Balanced shards: of ``n`` indices over ``N`` ranks the first ``n mod N`` ranks get one more.

A rank may hold nothing, and nothing is ever padded.
"""

from __future__ import annotations

Interval = tuple[int, int]
"""``(start, stop)`` of indices along one dimension, half open."""


def shard_length(length: int, ranks: int, rank: int) -> int:
    """Indices that ``rank`` holds of ``length`` over ``ranks``: ceil for the first, else floor."""
    return (length + ranks - 1 - rank) // ranks


def shard_lengths(length: int, ranks: int) -> tuple[int, ...]:
    """:func:`shard_length` of every rank; they add up to ``length``."""
    return tuple(shard_length(length, ranks, rank) for rank in range(ranks))


def shard_interval(length: int, ranks: int, rank: int) -> Interval:
    """The indices that ``rank`` holds, as a half-open interval."""
    start = rank * (length // ranks) + min(rank, length % ranks)
    return start, start + shard_length(length, ranks, rank)
