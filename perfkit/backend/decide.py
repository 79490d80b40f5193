"""Whether a candidate region becomes a perfkit kernel.

It must lower and compile, agree with torch (as exact against float64 as eager torch, up to a small
factor), and be faster than what Inductor would do: by measurement under ``max-autotune``, else by
a prediction with a margin. Decisions are kept on disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch

from perfkit import config
from perfkit.backend import pricing, program, regions, reproducer
from perfkit.backend.capture import Region
from perfkit.backend.check import check
from perfkit.backend.options import Options
from perfkit.backend.program import Program, Spec
from perfkit.backend.records import Records
from perfkit.backend.report import RegionReport
from perfkit.backend.schedules import REGION
from perfkit.errors import CompilerNotFound, PerfkitError
from perfkit.frontends import fx_graph, fx_loops
from perfkit.frontends.fx_graph import Graph

MARGIN = 1.4
"""How many times faster a region must be predicted to be, without measuring."""

SAVED = 2e-5
"""Seconds a region must be predicted to save at least."""

FORMAT = 2


@dataclass(frozen=True)
class Decision:
    """What became of a region; ``packed`` is the operator's argument when it is kept."""

    report: RegionReport
    packed: str = ""


Measure = Callable[[Graph, Program, Sequence[int]], tuple[float, float]]
"""Seconds of the kernel and of Inductor's own code for a region, at certain sizes."""


def decide(
    kind: str, operators: str, region: Region, options: Options, measure: Measure | None
) -> Decision:
    """Keep the region or not; never raises what perfkit raises on purpose."""
    settings = config.current()
    spec = Spec(fx_graph.dumps(region.graph), options.fp, REGION, torch.get_num_threads())
    identity = program.identity(settings)
    passing = regions.passing(region.nodes, region.outputs)
    question = json.dumps(
        [FORMAT, asdict(spec), identity, options.keep, options.check, measure is not None, passing]
    )
    key = "decision-" + hashlib.sha256(question.encode()).hexdigest()
    records = Records(settings.cache_dir)
    known = _known(records, key)
    if known is not None:
        return known
    try:
        decision = _decide(kind, operators, region.graph, passing, spec, options, measure)
    except CompilerNotFound as error:
        return Decision(RegionReport(kind, operators, False, str(error), trouble=True))
    except PerfkitError as error:
        script = reproducer.write(spec, error, settings.cache_dir)
        reason = f"{error} (run {script} to see it again)" if script else str(error)
        return Decision(RegionReport(kind, operators, False, reason, trouble=True))
    records.put(key, {"report": asdict(decision.report), "packed": decision.packed})
    return decision


def _known(records: Records, key: str) -> Decision | None:
    found = records.get(key)
    if found is None:
        return None
    try:
        return Decision(RegionReport(**found["report"]), str(found["packed"]))
    except (KeyError, TypeError):
        return None


def _decide(
    kind: str,
    operators: str,
    graph: Graph,
    passing: Sequence[bool],
    spec: Spec,
    options: Options,
    measure: Measure | None,
) -> Decision:
    free = frozenset(n for n, p in zip(graph.outputs, passing, strict=True) if p)
    theirs = pricing.inductor_seconds(graph, spec.threads, free)
    ours = pricing.region_seconds(graph, spec.threads)

    def report(
        kept: bool, reason: str, schedule: str = "", measured: tuple[float, float] = (0.0, 0.0)
    ) -> RegionReport:
        return RegionReport(kind, operators, kept, reason, schedule, ours, theirs, *measured)

    if not options.keep and measure is None:
        if not _promising(ours, theirs):
            return Decision(report(False, "not clearly faster by prediction"))
        # Worth lowering: now it is known how often the loops go through memory.
        ours = pricing.region_seconds(graph, spec.threads, fx_loops.swept(graph))
        if not _promising(ours, theirs):
            return Decision(report(False, "not clearly faster: its loops do not share their data"))
        if kind == "stencil" and not fx_loops.tiled(graph):
            return Decision(report(False, "too few steps, or too small, for overlapped tiles"))
    packed = spec.pack()
    made = program.load(packed)
    sizes = [graph.hints[s] for s in graph.sizes]
    if options.check:
        check(graph, made, sizes)
    if options.keep:
        return Decision(report(True, "kept on request", made.schedule), packed)
    if measure is None:
        return Decision(report(True, "predicted to be faster", made.schedule), packed)
    times = measure(graph, made, sizes)
    if times[1] < times[0] * pricing.CLEAR:
        return Decision(report(False, "measured: not faster", made.schedule, times))
    return Decision(report(True, "measured to be faster", made.schedule, times), packed)


def _promising(ours: float, theirs: float) -> bool:
    return theirs > MARGIN * ours and theirs - ours > SAVED


__all__ = ["Decision", "Measure", "decide"]
