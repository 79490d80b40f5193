"""Bytes that a rank handed to collectives and got from them, by stage and primitive."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Count:
    """Calls of a primitive in a stage, and the bytes that left and reached this rank.

    A rank's own share of an exchange stays in its memory and is not counted.
    """

    stage: str
    primitive: str
    calls: int = 0
    sent: int = 0
    received: int = 0


class Counters:
    """The counts of one rank in one process group, added up from what was really sent.

    Calls may come from several threads (autograd runs backward passes of GPU tensors in its own).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], Count] = {}

    def add(self, stage: str, primitive: str, sent: int, received: int) -> None:
        """Count one call; sizes in bytes."""
        key = (stage, primitive)
        with self._lock:
            old = self._counts.get(key, Count(stage, primitive))
            self._counts[key] = Count(
                stage, primitive, old.calls + 1, old.sent + sent, old.received + received
            )

    def __iter__(self) -> Iterator[Count]:
        """Every count, in the order in which stages first communicated."""
        with self._lock:
            return iter(tuple(self._counts.values()))

    def total(self, stage: str | None = None, primitive: str | None = None) -> Count:
        """The sum over the counts of a stage, of a primitive, of both, or of everything."""
        found = [
            count
            for count in self
            if stage in (None, count.stage) and primitive in (None, count.primitive)
        ]
        return Count(
            stage or "",
            primitive or "",
            sum(count.calls for count in found),
            sum(count.sent for count in found),
            sum(count.received for count in found),
        )

    def reset(self) -> None:
        """Forget everything counted so far."""
        with self._lock:
            self._counts.clear()
