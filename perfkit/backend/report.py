"""What the backend did with a graph: the records behind ``explain`` and the one warning."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RegionReport:
    """One candidate region.

    Attributes:
        kind: of the operator it grew around.
        operators: what it holds, counted.
        kept: whether it became a perfkit kernel.
        reason: why, or why not.
        schedule: the script of the kernel.
        predicted, inductor: seconds as estimated (0: not estimated).
        measured, measured_inductor: seconds as measured (0: not measured).
        trouble: whether the reason is a problem and not a choice.
    """

    kind: str
    operators: str
    kept: bool
    reason: str
    schedule: str = ""
    predicted: float = 0.0
    inductor: float = 0.0
    measured: float = 0.0
    measured_inductor: float = 0.0
    trouble: bool = False


@dataclass
class GraphReport:
    """One graph that Inductor compiled: its regions, and the operators outside of them; those of
    them that only their tensors keep out (element type, device, sizes), by the reason."""

    nodes: int = 0
    regions: list[RegionReport] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    unsuited: dict[str, int] = field(default_factory=dict)


@dataclass
class Report:
    """All graphs of one compilation, and what became of switches around attention."""

    graphs: list[GraphReport] = field(default_factory=list)
    warned: bool = False
    switches: list[RegionReport] = field(default_factory=list)

    def __str__(self) -> str:
        lines = _counted(self.switches)
        for k, graph in enumerate(self.graphs):
            kept = [r for r in graph.regions if r.kept]
            lines.append(f"graph {k}: {graph.nodes} operators, {len(kept)} perfkit regions")
            lines += _counted(graph.regions)
            if graph.left:
                most = sorted(graph.left.items(), key=lambda p: (-p[1], p[0]))
                lines.append(
                    "  Inductor's: " + ", ".join(n if c == 1 else f"{c} x {n}" for n, c in most)
                )
            for why, times in sorted(graph.unsuited.items()):
                lines.append(f"  {times} operators {why}")
        return "\n".join(lines) or "no graph was compiled"


def _counted(regions: list[RegionReport]) -> list[str]:
    """Layers repeat: what reads the same is told once."""
    found = Counter(map(_text, regions)).items()
    return [f"{text}\n      {times} of these" if times > 1 else text for text, times in found]


def _text(region: RegionReport) -> str:
    mark = "*" if region.kept else "-"
    lines = [f"  {mark} {region.kind}: {region.operators}", f"      {region.reason}"]
    if region.predicted:
        lines.append(
            f"      predicted {region.predicted * 1e3:.3f} ms, Inductor "
            f"{region.inductor * 1e3:.3f} ms"
        )
    if region.measured:
        lines.append(
            f"      measured {region.measured * 1e3:.3f} ms, Inductor "
            f"{region.measured_inductor * 1e3:.3f} ms"
        )
    if region.kept and region.schedule.strip():
        lines += [f"      {line}" for line in region.schedule.strip().splitlines()]
    return "\n".join(lines)


__all__ = ["GraphReport", "RegionReport", "Report"]
