"""A region's kernel against torch: no larger error against float64 than eager's, or little."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from perfkit.backend import reference
from perfkit.backend.program import Program
from perfkit.errors import CheckFailed
from perfkit.frontends.fx_graph import Graph

WORSE = 1.5
"""How much larger than eager torch's a kernel's error may be, against float64."""


def check(graph: Graph, made: Program, sizes: Sequence[int]) -> None:
    """Compare a kernel with torch on random inputs.

    Raises:
        CheckFailed: another value, or a larger error than torch's own.
    """
    inputs = reference.example(graph, sizes)
    got = made(inputs, sizes)
    eager = reference.run(graph, inputs, sizes)
    exact = reference.run(graph, inputs, sizes, wide=True)
    for name, mine, torchs, truth in zip(graph.outputs, got, eager, exact, strict=True):
        problem = difference(mine, torchs, truth)
        if problem:
            raise CheckFailed(f"{made.kernel.signature.name}: result {name} {problem}")


def difference(mine: Tensor, eager: Tensor, exact: Tensor) -> str:
    """What is wrong with a result, given torch's own and the one in float64; "" when nothing."""
    if mine.shape != eager.shape or mine.dtype != eager.dtype:
        return f"is {tuple(mine.shape)} {mine.dtype}, not {tuple(eager.shape)} {eager.dtype}"
    if not mine.is_floating_point():
        return "" if torch.equal(mine, eager) else "differs"
    if not torch.equal(mine.isnan(), eager.isnan()):
        return "has NaN elsewhere"
    finite = exact.isfinite() & eager.isfinite()
    if not torch.equal(mine[~finite].nan_to_num(), eager[~finite].nan_to_num()):
        return "has infinities elsewhere"
    if not bool(finite.any()):
        return ""
    truth = exact[finite].double()
    scale = float(truth.abs().max()) + torch.finfo(torch.float64).tiny
    errors = [float((x[finite].double() - truth).abs().max()) / scale for x in (mine, eager)]
    allowed = WORSE * errors[1] + 2 * torch.finfo(mine.dtype).eps
    return "" if errors[0] <= allowed else (
        f"has the error {errors[0]:.2g} relative to the largest value, eager torch {errors[1]:.2g}"
    )


__all__ = ["check", "difference"]
