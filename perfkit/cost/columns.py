"""The columns of the learned cost model's features, by kind of token.

Everything is in log2 and relative to constants of the device (cache sizes, vector width, threads,
bandwidth), so that a model carries over between sizes and, as far as the physics is the same,
between machines. A change of the columns is a new :data:`SCHEMA`.
"""

from __future__ import annotations

SCHEMA = 2
"""Number of this set of features; weights name the one that they were trained on."""

LEVELS = 3
"""Cache levels that have columns; a device with fewer repeats its last."""

INNER = 3
"""Innermost loops that an access has strides for."""

LOOP = (
    "trip: iterations per entry, mean",
    "total: iterations over the whole run",
    "entered: times the loop is entered",
    "parallel: 1 when threads share the iterations",
    "vector: log2 of the lanes asked for, 0 without",
    "jam: log2 of the copies jammed",
    "unroll: log2 of the copies unrolled",
    "tile: log2 of the iterations that one step covers, 0 for a point loop",
    "skewed: 1 when more than one iterator enters",
    "down: 1 when an iterator enters with a negative sign",
    "innermost: 1 when no loop is inside",
    "depth: loops around it",
    "height: loops inside, along the deepest path",
    "statements: how many are inside",
    "parts: children of its body",
    "bytes1: data of one run of the loop over the first cache",
    "bytes2: the same over the second cache",
    "bytes3: the same over the third cache",
    "work: instances of statements per run of the loop",
    "uneven: longest share of a thread over the mean, for a parallel loop",
    "cost: cycles spent on entering and counting, over all statement cycles",
)

ACCESS = (
    "write: 1 when the element is stored",
    "references: distinct accesses that move alike",
    "item: bytes of an element",
    "array1: bytes of the array over the first cache",
    "array2: bytes of the array over the second cache",
    "array3: bytes of the array over the third cache",
    *(
        f"{what}{k}: {text}, loop {k} from the innermost"
        for k in range(INNER)
        for what, text in (
            ("stride", "bytes the access moves by per iteration"),
            ("unit", "1 when it moves to the neighbour"),
            ("still", "1 when it stays"),
            ("lines", "cache lines of one run of the loop"),
            ("sets1", "sets of the first cache over those that its steps come through"),
            ("sets2", "sets of the second cache over those that its steps come through"),
        )
    ),
    "back: 1 when the innermost loop walks to lower addresses",
    "reuse: loops from the innermost to the nearest that the access does not move along",
    "all: cache lines of the whole nest",
    "visits: touches per line over the whole run",
    "private: 1 when threads touch parts of their own",
)

STATEMENT = (
    "instances: times it runs",
    "fma: multiply-adds per instance",
    "other: cheap operations",
    "dear: cycles of divisions and functions",
    "chain: dependent operations from its own element to the result",
    "plain: 1 for arithmetic that has a vector form",
    "lanes: instances side by side",
    "automatic: 1 when that is left to the compiler",
    "whole: share of the instances in whole strips",
    "copies: instances side by side through jamming",
    "sum: 1 when the innermost loop adds to one element",
    "moving: share of its accesses that the innermost loop moves",
    "mates: statements directly in the same loop",
    "partial: 1 when it runs in fewer iterations than another of them",
    "unrolled: iterations of the inner loops that compilers unroll completely",
    "depth: loops around it",
    "threads: threads that share it",
    "cycles: predicted cycles per instance with data in the first cache",
    "fill1: time to fill the first cache over the time to compute",
    "fill2: the same for the second cache",
    "fill3: the same for the third cache",
    "share: its part of the predicted time",
)

PROGRAM = (
    "roofline: nanoseconds that no schedule can be under",
    "flops: operations per second of roofline time, over the peak",
    "intensity: operations per byte of the arrays",
    "data1: bytes of all arrays over the first cache",
    "data2: the same over the second cache",
    "data3: the same over the third cache",
    "single: 1 for 4-byte elements",
    "reassociate: 1 when sums may be reordered",
    "threads: threads of the device",
    "statements: how many",
    "loops: how many",
    "compute: predicted compute time over the roofline",
    "fill1: predicted time to fill the first cache over the roofline",
    "fill2: the same for the second cache",
    "fill3: the same for the third cache",
    "overhead: predicted time for entering loops over the roofline",
    "waiting: predicted time for barriers and fresh pages over the roofline",
    "serial: share of the predicted time that runs on one thread",
    "guess: predicted time of the whole over the roofline",
)

KINDS = ("program", "loop", "statement", "access")
WIDTHS = {"program": len(PROGRAM), "loop": len(LOOP), "statement": len(STATEMENT),
          "access": len(ACCESS)}  # fmt: skip

__all__ = [
    "ACCESS", "INNER", "KINDS", "LEVELS", "LOOP", "PROGRAM", "SCHEMA", "STATEMENT", "WIDTHS",
]  # fmt: skip
