"""One subject three ways: eager, Inductor, perfkit; checked first, then timed in turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from bench.backend.programs import Prepared
from perfkit.backend.compile import compile_graph, parse_options
from perfkit.backend.report import Report
from perfkit.runtime.measure import interleaved, ratio_interval, time_python

DIRECTIONS = ("forward", "training")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
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
    dtype: str
    kept: int
    eager_error: float
    error: float
    eager: float = 0.0
    inductor: float = 0.0
    perfkit: float = 0.0
    spread: float = 0.0
    low: float = 0.0
    inductor_error: float = 0.0

    @property
    def gain(self) -> float:
        """Inductor's time over ours."""
        return self.inductor / self.perfkit if self.perfkit else 0.0

    @property
    def wrong(self) -> bool:
        return not self.error <= ALLOWED * self.eager_error + FLOOR


Step = Callable[[], list[Tensor]]


class Subject(Protocol):
    """A micro program or a model."""

    def prepare(
        self, generator: torch.Generator, tiny: bool, dtype: torch.dtype
    ) -> Prepared: ...


def _step(
    function: Callable[..., Any],
    direction: str,
    arguments: tuple[Tensor, ...],
    leaves: list[Tensor],
    names: tuple[str, ...],
) -> Step:
    """One run; training goes back from fixed random weights of the results, and gives gradients.

    A loss of the results alone would not do: the mean of the squares of what a normalization made
    is a constant, and its gradients are nothing but rounding.
    """
    named = {"names": names} if names else {}
    weights: list[Tensor] = []

    def forward() -> list[Tensor]:
        with torch.no_grad():
            return _tensors(function(*arguments, **named))

    def training() -> list[Tensor]:
        outputs = [t for t in _tensors(function(*arguments, **named)) if t.requires_grad]
        if not weights:
            generator = torch.Generator().manual_seed(1)
            # Every element type has these numbers exactly.
            drawn = (torch.randn(t.shape, generator=generator).bfloat16() for t in outputs)
            weights.extend(w.to(t.dtype) for w, t in zip(drawn, outputs, strict=True))
        found = torch.autograd.grad(outputs, leaves, weights, allow_unused=True)
        return [g for g in found if g is not None]

    return forward if direction == "forward" else training


def _tensors(value: Any) -> list[Tensor]:
    return [t for t in torch.utils._pytree.tree_leaves(value) if isinstance(t, Tensor)]


SMALL = 1e-3
"""A gradient this much below the largest one is compared with that: some are zero but for
rounding (of the bias of keys, which softmax cancels)."""


def error(found: list[Tensor], exact: list[Tensor]) -> float:
    """The largest difference, relative to the largest value of its tensor."""
    worst = 0.0
    top = max((float(b.abs().max()) for b in exact if b.is_floating_point()), default=0.0)
    for a, b in zip(found, exact, strict=True):
        if not b.is_floating_point():
            worst = max(worst, float(not torch.equal(a, b)))
            continue
        scale = max(float(b.abs().max()), SMALL * top) or 1.0
        worst = max(worst, float((a.double() - b.double()).abs().max()) / scale)
    return worst


def run(
    name: str,
    subject: Subject,
    direction: str,
    mode: str | None,
    options: Mapping[str, Any] | None,
    rounds: int,
    tiny: bool,
    dtype: str = "fp32",
) -> tuple[Row, Report]:
    """Compile, check and time one subject; ``rounds`` 0 only checks."""
    report = Report()
    chosen = parse_options(mode, options)

    def backend(graph: Any, inputs: Any) -> Any:
        return compile_graph(graph, inputs, chosen, report)

    torch.compiler.reset()
    made = subject.prepare(torch.Generator().manual_seed(0), tiny, DTYPES[dtype])
    forms = {
        "eager": made.run,
        "inductor": torch.compile(made.run),
        "perfkit": torch.compile(made.run, backend=backend),
    }
    ways = {
        way: _step(form, direction, made.arguments, made.leaves, made.names)
        for way, form in forms.items()
    }
    # The pass has to run to be reported, so Inductor may find its code in its cache, not the graph.
    with (
        torch._inductor.config.patch(fx_graph_cache=False),
        torch._functorch.config.patch(enable_autograd_cache=False),
    ):
        results = {way: step() for way, step in ways.items()}
    truth = _step(
        made.exact, direction, made.exact_arguments, made.exact_leaves, made.names
    )()
    kept = sum(r.kept for g in report.graphs for r in g.regions)
    errors = {way: error(results[way], truth) for way in WAYS}
    row = Row(
        name, direction, dtype, kept, errors["eager"], errors["perfkit"],
        inductor_error=errors["inductor"],
    )  # fmt: skip
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


__all__ = ["DIRECTIONS", "DTYPES", "WAYS", "Row", "error", "run"]
