"""What the generator knows of the machine it generates for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A CPU with ``simd_bytes``-wide vectors; ``threads`` 0 leaves their number to OpenMP."""

    simd_bytes: int = 16
    threads: int = 0
