"""What the generator knows of the machine it generates for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A CPU with ``simd_bytes``-wide vectors; ``threads`` is what the caller intends to use."""

    simd_bytes: int = 16
    threads: int = 1
