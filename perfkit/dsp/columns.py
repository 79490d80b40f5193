"""Which linear layers of a model Megatron-SP divides, found in a sample run.

The outputs of a linear layer get an axis: heads where a view makes heads of them that attention
carries, hidden features else. An axis is used if every call that mixes it is a linear layer: those
are divided by rows. A residual stream, a norm or a gate on the width rule an axis out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perfkit.dsp.trace import Trace
from perfkit.dsp.widths import Column


@dataclass(frozen=True)
class Divided:
    """Linear layers by number of call: ``columns`` first, ``rows`` last, ``between`` all calls."""

    columns: Mapping[int, Column]
    rows: Mapping[int, str]
    between: Sequence[Sequence[int]]


def columns(trace: Trace) -> dict[int, Column]:
    """An axis for the outputs of every linear layer of a trace."""
    heads = trace.heads(range(len(trace.calls)))
    found = {}
    for number, call in enumerate(trace.calls):
        width = trace.widths.get(call.outputs[0]) if call.outputs else None
        if call.function != "linear" or width is None:
            continue
        parent = (call.frames[-1][0] if call.frames else "").rpartition(".")[0]
        parts = trace.splits.get(call.outputs[0], {})
        name = next((n for n in parts if n in heads), None)
        if name is not None:
            found[number] = Column(f"{parent}.heads", *parts[name])
        else:
            found[number] = Column(f"{parent}.{width}", 1, width, 1)
    return found


def divided(trace: Trace, given: Mapping[int, Column], axis: str) -> Divided:
    """What of the columns ``given`` can be used with a sequence sharded on ``axis``."""
    results = frozenset[str]().union(*(trace.values[v].axes for v in trace.results))
    used: dict[str, list[int]] = {}
    rows: dict[int, str] = {}
    for name in dict.fromkeys(column.axis for column in given.values()):
        having = [n for n in range(len(trace.calls)) if name in _axes(trace, n)]
        ends = [n for n in having if name in trace.calls[n].mixed]
        fits = all(
            trace.calls[n].function == "linear" and axis in trace.carried(n) for n in ends
        )
        if ends and fits and name not in results:
            starts = [n for n, column in given.items() if column.axis == name]
            used[name] = sorted({*starts, *having})
            rows.update(dict.fromkeys(ends, name))
    kept = {n: column for n, column in given.items() if column.axis in used}
    return Divided(kept, rows, list(used.values()))


def _axes(trace: Trace, number: int) -> frozenset[str]:
    return frozenset[str]().union(*(trace.values[v].axes for v in trace.calls[number].inputs))
