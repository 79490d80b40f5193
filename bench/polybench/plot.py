"""Speed-up over the original as bars, peers as markers."""

from __future__ import annotations

from pathlib import Path

from bench.polybench.peers import ORIGINAL, OURS
from bench.polybench.results import Row, Run
from bench.polybench.table import columns, geomean, ratio

_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")


class NothingToPlot(Exception):
    """No row has times, or matplotlib is missing."""


def speedup(row: Row, peer: str) -> float | None:
    """Median ratio of the original's time to a peer's best, None without."""
    found = ratio(row.best(ORIGINAL), row.best(peer))
    return found.median if found else None


def draw(run: Run, path: Path) -> None:
    """Write the picture; the format follows the suffix.

    Raises:
        NothingToPlot: there are no times, or matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise NothingToPlot("--plot needs matplotlib: pip install 'perfkit[bench]'") from None
    rows = [row for row in run.rows if row.best(ORIGINAL)]
    peers = [peer for peer in columns(run) if peer != ORIGINAL]
    if not rows:
        raise NothingToPlot("nothing was timed, so there is nothing to plot")
    # Where perfkit did not run, the best peer gives the place in the order.
    rows.sort(key=lambda row: speedup(row, OURS) or 0.0)
    figure = Figure(figsize=(9, 1.8 + 0.28 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = range(len(rows))
    ours = [speedup(row, OURS) for row in rows]
    known = [value for value in ours if value is not None]
    if known:
        bars = [(place, value) for place, value in zip(places, ours, strict=True) if value]
        for faster, colour in ((True, "#2f6db3"), (False, "#b0413e")):
            chosen = [(place, value) for place, value in bars if (value >= 1.0) == faster]
            word = f"perfkit ({geomean(known):.2f}x of {len(known)})" if faster else "slower"
            if chosen or faster:
                axes.barh(
                    [place for place, _ in chosen],
                    [value - 1.0 for _, value in chosen],
                    left=1.0,
                    height=0.72,
                    color=colour,
                    label=word,
                )
    for marker, peer in zip(_MARKERS, peers, strict=False):
        found = [(speedup(row, peer), place) for row, place in zip(rows, places, strict=True)]
        points = [(value, place) for value, place in found if value]
        if points:
            axes.plot(
                [value for value, _ in points],
                [place for _, place in points],
                marker,
                markersize=5,
                markeredgecolor="black",
                markeredgewidth=0.4,
                label=f"{peer} ({geomean(v for v, _ in points):.2f}x of {len(points)})",
            )
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)]
    axes.set_xticks(ticks, [f"{t:g}x" for t in ticks], minor=False)
    axes.minorticks_off()
    values = [v for row in rows for p in (OURS, *peers) if (v := speedup(row, p))] or [1.0]
    axes.set_xlim(min(0.8, min(values) / 1.2), max(1.25, max(values) * 1.2))
    axes.set_yticks(list(places), [row.kernel for row in rows])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    settings, cpu = run.settings, run.machine["cpu"]
    axes.set_xlabel("times faster than gcc -O3 -march=native (log scale)")
    axes.set_title(f"{settings['dataset']}, {settings['threads']} threads, {cpu}", fontsize=9)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
