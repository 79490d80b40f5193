"""Dynamic sequence parallelism: placements, switches of the sharded axis, plans, projections.

Importing this is cheap and needs no torch; the primitives load it at their first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perfkit.comm.group import counters
    from perfkit.dsp.primitives import Pending, gather, reduce_scatter, split, switch

_HOMES = {
    "Pending": "perfkit.dsp.primitives",
    "counters": "perfkit.comm.group",
    "gather": "perfkit.dsp.primitives",
    "reduce_scatter": "perfkit.dsp.primitives",
    "split": "perfkit.dsp.primitives",
    "switch": "perfkit.dsp.primitives",
}

__all__ = ["Pending", "counters", "gather", "reduce_scatter", "split", "switch"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'perfkit.dsp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
