"""Dynamic sequence parallelism: placements, switches of the sharded axis, plans, projections.

Importing this is cheap and needs no torch; the primitives load it at their first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perfkit.comm.group import counters
    from perfkit.cost.transfer import Link
    from perfkit.dsp.methods import Mixes
    from perfkit.dsp.parallel import parallelize, restore
    from perfkit.dsp.pipeline import pipelined_switch
    from perfkit.dsp.placement import Placement
    from perfkit.dsp.plan import Graph, Plan, make_plan
    from perfkit.dsp.pricing import Mesh, Passes, Stage
    from perfkit.dsp.primitives import Pending, gather, reduce_scatter, split, switch
    from perfkit.dsp.report import explain
    from perfkit.dsp.verification import verify

_HOMES = {
    "Graph": "perfkit.dsp.plan",
    "Link": "perfkit.cost.transfer",
    "Mesh": "perfkit.dsp.pricing",
    "Mixes": "perfkit.dsp.methods",
    "Passes": "perfkit.dsp.pricing",
    "Pending": "perfkit.dsp.primitives",
    "Placement": "perfkit.dsp.placement",
    "Plan": "perfkit.dsp.plan",
    "Stage": "perfkit.dsp.pricing",
    "counters": "perfkit.comm.group",
    "explain": "perfkit.dsp.report",
    "gather": "perfkit.dsp.primitives",
    "make_plan": "perfkit.dsp.plan",
    "parallelize": "perfkit.dsp.parallel",
    "pipelined_switch": "perfkit.dsp.pipeline",
    "reduce_scatter": "perfkit.dsp.primitives",
    "restore": "perfkit.dsp.parallel",
    "split": "perfkit.dsp.primitives",
    "switch": "perfkit.dsp.primitives",
    "verify": "perfkit.dsp.verification",
}

__all__ = [
    "Graph", "Link", "Mesh", "Mixes", "Passes", "Pending", "Placement", "Plan", "Stage", "counters",
    "explain", "gather", "make_plan", "parallelize", "pipelined_switch", "reduce_scatter",
    "restore", "split", "switch", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'perfkit.dsp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
