"""Which way a stage between two switches takes, by price: plain, pipelined or fused.

``plain``      switch, stage, switch, by collectives
``pipelined``  the same in chunks (:mod:`perfkit.dsp.pipeline`); only priced here, since it has to
               be put around a stage's function and a model is run unmodified
``fused``      the tensors stay, and the attention exchanges inside its kernel
               (:mod:`perfkit.dsp.fused`)

Prices follow the alpha-beta model, forward, on balanced shards. The rates below are those of
``python -m bench.attention --part b`` on two cores (exposed communication over bytes moved by a
rank, packing included): collectives 0.14 to 0.35 GB/s, the heap 1.1 to 2.3 GB/s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from perfkit.comm.group import GroupLike, process_group_of, resolve
from perfkit.comm.shared import SharedHeaps
from perfkit.cost.transfer import Link, transfer
from perfkit.dsp.pipeline import choose_chunks, predict
from perfkit.dsp.stages import Decision
from perfkit.dsp.trace import Trace

Kernels = Literal["plain", "fused", "auto"]
KERNELS: tuple[Kernels, ...] = ("plain", "fused", "auto")
COLLECTIVES = Link(0.2e9, 100e-6)
HEAP = Link(1.4e9, 20e-6)
FLOPS = 5e10  # of one core in attention, for what a pipeline can hide


@dataclass(frozen=True)
class Prices:
    """Seconds by way (None: it cannot be taken), what is used, and why."""

    seconds: dict[str, float | None]
    chosen: str
    why: str

    def line(self) -> str:
        told = ", ".join(
            f"{name} {'not possible' if s is None else f'{s * 1e3:.3f} ms'}"
            for name, s in self.seconds.items()
        )
        return f"kernels: {told}; {self.chosen}, {self.why}"


def shares_memory(group: GroupLike) -> bool:
    """Whether the ranks can have a heap; every rank asks."""
    found = resolve(process_group_of(group).group_name)
    heaps = found.keep(SharedHeaps, lambda: SharedHeaps(found))
    return heaps.get(4096, frames=1, subtiles=1) is not None


def plain_seconds(decision: Decision, ranks: int, link: Link = COLLECTIVES) -> float:
    """All changes of layout, one after the other."""
    return sum(transfer(sent, ranks - 1, link) for sent in _sent(decision, ranks))


def pipelined_seconds(
    trace: Trace, decision: Decision, ranks: int, link: Link = COLLECTIVES
) -> float:
    """The same with every stage between two switches in the best number of chunks."""
    total = plain_seconds(decision, ranks, link)
    switches = [c for c in decision.changes if c.kind == "switch"]
    for first, second in zip(switches[::2], switches[1::2], strict=False):
        sent = first.bytes / ranks * (1 - 1 / ranks)
        calls = range(first.call, second.call)
        arithmetic = sum(trace.calls[c].flops for c in calls) / ranks / FLOPS
        chunks = choose_chunks(sent, ranks, arithmetic, link)
        hidden = predict(1, sent, ranks, arithmetic, link)
        total += predict(chunks, sent, ranks, arithmetic, link) - hidden
    return total


def fused_seconds(
    trace: Trace, decision: Decision, ranks: int, link: Link = COLLECTIVES, heap: Link = HEAP
) -> float:
    """What still changes its layout, and what the attention along the held axis exchanges."""
    total = plain_seconds(decision, ranks, link)
    for call, held in zip(trace.calls, decision.held, strict=True):
        if held is None or held not in call.rounds:
            continue
        moved = sum(trace.values[v].bytes for v in (*call.inputs, *call.outputs))
        total += transfer(moved / ranks * (1 - 1 / ranks), 2 * (ranks - 1), heap)
    return total


def segment_prices(
    sent: Sequence[float], ranks: int, link: Link = COLLECTIVES, heap: Link = HEAP
) -> Prices:
    """Switches around one attention, each of which moves so many bytes out of a rank.

    The same bytes travel by collectives, one switch after the other, or inside the attention.
    """
    seconds: dict[str, float | None] = {
        "plain": sum(transfer(b, ranks - 1, link) for b in sent),
        "fused": transfer(sum(sent), 2 * (ranks - 1), heap),
    }
    chosen = min(seconds, key=lambda way: seconds[way] or 0.0)
    return Prices(seconds, chosen, "the cheapest")


def _sent(decision: Decision, ranks: int) -> Iterator[float]:
    for change in decision.changes:
        if change.before is not None:
            mine = change.bytes / ranks
            yield mine * (ranks - 1) if change.after is None else mine * (1 - 1 / ranks)
