"""Part (c): the loss of the same training on one rank and on several, overlaid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.dsp.stdit import Size
from bench.dsp.world import World

SIZE = Size(batch=2, frames=17, positions=51, width=32, heads=4, pairs=2)
METHODS = ("dsp", "ulysses", "megatron", "ring")


@dataclass(frozen=True)
class Curves:
    """Losses of AdamW steps on one rank, and of each method on ``ranks`` of them."""

    size: Size
    ranks: int
    one: list[float]
    parallel: dict[str, list[float]]

    @property
    def differences(self) -> dict[str, float]:
        """The largest difference to one rank, absolute, for each method."""
        return {
            name: max(abs(a - b) for a, b in zip(self.one, losses, strict=True))
            for name, losses in self.parallel.items()
        }


def train(ranks: int = 4, steps: int = 200, size: Size = SIZE) -> Curves:
    """Train from the same start on the same data."""
    with World(1, size) as world:
        one = world.run("curve", name="dsp", count=steps)[0]
    with World(ranks, size) as world:
        parallel = {name: world.run("curve", name=name, count=steps)[0] for name in METHODS}
    return Curves(size, ranks, one, parallel)


def draw(curves: Curves, path: Path) -> None:
    """Write the picture; the format follows the suffix.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    upper.plot(curves.one, color="black", linewidth=3, alpha=0.35, label="1 rank")
    styles = ("-", "--", "-.", ":")
    for (name, losses), style in zip(curves.parallel.items(), styles, strict=False):
        upper.plot(losses, style, linewidth=1, label=f"{curves.ranks} ranks, {name}")
        apart = [abs(a - b) for a, b in zip(curves.one, losses, strict=True)]
        lower.plot([max(d, 1e-9) for d in apart], style, linewidth=1, label=name)
    upper.set_ylabel("loss")
    upper.legend()
    size = curves.size
    upper.set_title(
        f"ST-DiT, T={size.frames}, S={size.positions}, C={size.width}, fp32, AdamW", fontsize=10
    )
    lower.set_yscale("log")
    lower.set_ylabel("|difference| to 1 rank")
    lower.set_xlabel("step")
    FigureCanvasAgg(figure).print_figure(path, dpi=110)
