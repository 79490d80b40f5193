"""One subject three ways: eager, Inductor, perfkit; checked first, then timed in turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bench.backend.programs import Program
from perfkit.backend.compile import compile_graph, parse_options
from perfkit.backend.report import Report
from perfkit.runtime.measure import interleaved, ratio_interval, time_python

DIRECTIONS = ("forward", "training")
WAYS = ("eager", "inductor", "perfkit")

ALLOWED = 1.5
"""How much larger than eager's our error may be."""

FLOOR = 5e-7
"""Relative errors below this are rounding of the result itself."""


@dataclass(frozen=True)
class Row:
    """Results for one subject and direction; times in ms, errors relative to the largest value."""

    name: str
    direction: str
    kept: int
    eager_error: float
    error: float
    eager: float = 0.0
    inductor: float = 0.0
    perfkit: float = 0.0
    spread: float = 0.0
    low: float = 0.0
    note: str = ""

    @property
    def gain(self) -> float:
        """Inductor's time over ours."""
        return self.inductor / self.perfkit if self.perfkit else 0.0

    @property
    def wrong(self) -> bool:
        return not self.error <= ALLOWED * self.eager_error + FLOOR


Step = Callable[[], list[Tensor]]


def forward(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Step:
    def step() -> list[Tensor]:
        with torch.no_grad():
            return _tensors(function(*arguments))

    return step


def training(
    function: Callable[..., Any], arguments: tuple[Any, ...], parameters: list[Tensor]
) -> Step:
    """Forward and backward through the mean of the squares; the gradients are the result."""

    def step() -> list[Tensor]:
        outputs = [t for t in _tensors(function(*arguments)) if t.is_floating_point()]
        loss = torch.stack([(t * t).mean() for t in outputs]).sum()
        return list(torch.autograd.grad(loss, parameters))

    return step


def _tensors(value: Any) -> list[Tensor]:
    return [t for t in torch.utils._pytree.tree_leaves(value) if isinstance(t, Tensor)]


def error(found: list[Tensor], exact: list[Tensor]) -> float:
    """The largest difference, relative to the largest value of its tensor."""
    worst = 0.0
    for a, b in zip(found, exact, strict=True):
        if not b.is_floating_point():
            worst = max(worst, float(not torch.equal(a, b)))
            continue
        scale = float(b.abs().max()) or 1.0
        worst = max(worst, float((a.double() - b.double()).abs().max()) / scale)
    return worst


def run(
    name: str,
    subject: Program,
    direction: str,
    mode: str | None,
    options: Mapping[str, Any] | None,
    rounds: int,
    tiny: bool,
) -> tuple[Row, Report]:
    """Compile, check and time one subject; ``rounds`` 0 only checks."""
    report = Report()
    chosen = parse_options(mode, options)

    def backend(graph: Any, inputs: Any) -> Any:
        return compile_graph(graph, inputs, chosen, report)

    torch.compiler.reset()
    arguments = subject.arguments(torch.Generator().manual_seed(0), tiny)
    function = subject.run
    ways = {
        "eager": _step(function, direction, arguments),
        "inductor": _step(torch.compile(function), direction, arguments),
        "perfkit": _step(torch.compile(function, backend=backend), direction, arguments),
    }
    results = {way: step() for way, step in ways.items()}
    wide = tuple(a.double() if a.is_floating_point() else a for a in arguments)
    truth = _step(function, direction, wide)()
    kept = sum(r.kept for g in report.graphs for r in g.regions)
    row = Row(
        name, direction, kept, error(results["eager"], truth), error(results["perfkit"], truth)
    )
    if not rounds:
        return row, report
    samples = interleaved(
        [time_python(ways[w]) for w in WAYS], rounds, keep=range(3), stop_ratio=100.0, lock=False
    )
    pairs = ratio_interval(samples[1].seconds, samples[2].seconds)
    eager, inductor, ours = (statistics.median(s.seconds) * 1e3 for s in samples)
    timed = replace(
        row, eager=eager, inductor=inductor, perfkit=ours, spread=samples[2].spread, low=pairs.low
    )
    return timed, report


def _step(function: Callable[..., Any], direction: str, arguments: tuple[Any, ...]) -> Step:
    if direction == "forward":
        return forward(function, arguments)
    leaves = [a.detach().requires_grad_() for a in arguments]
    return training(function, tuple(leaves), leaves)


__all__ = ["DIRECTIONS", "WAYS", "Row", "error", "forward", "run", "training"]
