"""The time that no schedule of a program can be under: peak arithmetic, and data read once."""

from __future__ import annotations

from dataclasses import dataclass

from perfkit.cost.device import Device
from perfkit.cost.facts import Facts, Placed
from perfkit.cost.operations import operations

LEAST = 2e-7
"""Seconds of the shortest roofline: calling a kernel costs about as much."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """``seconds`` is the larger of ``compute`` and ``memory`` seconds, and at least LEAST."""

    seconds: float
    compute: float
    memory: float
    operations: float
    bytes: float
    item_bytes: int

    @staticmethod
    def of(facts: Facts, device: Device) -> Roofline:
        """From the original order of a program at given sizes."""
        count = cycles = 0.0
        item = max((m.item_bytes for p in facts.placed for m in p.moves), default=8)
        lanes = max(1, device.simd_bytes // item)
        for placed in facts.placed:
            found = operations(placed.statement.value, placed.statement.write)
            each = found.fma + found.other
            count += placed.instances * max(each, 1.0)
            cycles += placed.instances * max(each, 1.0) / lanes / device.fma_per_cycle
            cycles += placed.instances * found.dear / lanes
        compute = cycles / device.hertz / device.threads
        arrays = {m.access.array: m.array_bytes for p in facts.placed for m in p.moves if m.extents}
        size = float(sum(arrays.values()))
        holding = [k for k, x in enumerate(device.levels) if size <= x.bytes]
        # Data that a level holds comes from there; what none holds comes from memory.
        outside = device.levels[max(0, (holding[0] if holding else len(device.levels)) - 1)]
        memory = size / outside.total_rate
        return Roofline(max(compute, memory, LEAST), compute, memory, count, size, item)


def spread(placed: Placed, device: Device) -> float:
    """How many threads a statement's work is effectively spread over."""
    k = placed.parallel
    if k is None:
        return 1.0
    trip = placed.trips[k].mean
    rounds = -(-trip // device.threads)
    return max(1.0, min(float(device.threads), trip / max(1.0, rounds)))


__all__ = ["Roofline", "spread"]
