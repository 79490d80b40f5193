"""Whether a parallelized model computes what one rank does: outputs and every gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from perfkit.dsp.parallel import arguments, state_of
from perfkit.dsp.trace import bound, leaves
from perfkit.errors import CheckFailed

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-5}
_SHORT_TYPES = 2e-2


@dataclass(frozen=True)
class Verified:
    """The largest errors, relative to max(|reference|, RMS of the model's gradients)."""

    outputs: float
    gradients: float
    worst: str
    tolerance: float

    def __str__(self) -> str:
        return (
            f"outputs within {self.outputs:.1e}, gradients within {self.gradients:.1e} "
            f"({self.worst}) of one rank's; tolerance {self.tolerance:.0e}"
        )


def verify(model: nn.Module, batch: Any, *, tolerance: float | None = None) -> Verified:
    """Run a parallelized model both ways on every rank and compare.

    The loss is a fixed random weighting of all outputs. The model is in eval mode meanwhile, since
    dropout draws other numbers on parts. Gradients, training mode and buffers are put back.

    Args:
        batch: arguments of one call, as ``sample`` of :func:`dsp.parallelize`; the same on every
            rank.
        tolerance: by default 1e-9 for fp64, 1e-5 for fp32, 2e-2 for shorter types.

    Raises:
        CheckFailed: an output or gradient is further off than that; names it.
    """
    state = state_of(model)
    given = bound(model, *arguments(batch))
    modes = {module: module.training for module in model.modules()}
    kept = {name: p.grad for name, p in model.named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    try:
        model.eval()
        with state.suspended():
            wanted = _run(model, given)
        found = _run(model, given)
    finally:
        for module, mode in modes.items():
            module.training = mode
        for name, p in model.named_parameters():
            p.grad = kept[name]
        for name, b in model.named_buffers():
            b.copy_(buffers[name])
    result = _compare(found, wanted, tolerance)
    if not max(result.outputs, result.gradients) <= result.tolerance:
        raise CheckFailed(f"rank {state.rank} of {state.ranks}: {result}")
    return result


_Results = tuple[list[Tensor], dict[str, Tensor | None]]


def _run(model: nn.Module, given: Mapping[str, Any]) -> _Results:
    for p in model.parameters():
        p.grad = None
    found = [x for x in leaves(model(**given)) if isinstance(x, Tensor) and x.is_floating_point()]
    generator = torch.Generator().manual_seed(0)
    losses = [
        (x * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)).sum()
        for x in found
        if x.requires_grad
    ]
    if losses:
        torch.stack(losses).sum().backward()
    return [x.detach() for x in found], {n: p.grad for n, p in model.named_parameters()}


def _compare(found: _Results, wanted: _Results, tolerance: float | None) -> Verified:
    outputs = 0.0
    for x, reference in zip(found[0], wanted[0], strict=True):
        if x.shape != reference.shape:
            raise CheckFailed(f"an output has shape {tuple(x.shape)}, not {tuple(reference.shape)}")
        if x.numel():
            scale = max(float(reference.abs().max()), 1e-300)
            outputs = max(outputs, float((x - reference).abs().max()) / scale)
    known = {n: g for n, g in wanted[1].items() if g is not None}
    count = sum(g.numel() for g in known.values())
    total = sum(float(g.double().square().sum()) for g in known.values())
    rms = (total / max(count, 1)) ** 0.5
    gradients, worst = 0.0, "none"
    for name, reference in known.items():
        gradient = found[1][name]
        if gradient is None:
            raise CheckFailed(f"parameter {name!r} has no gradient on the sharded model")
        error = float((gradient - reference).abs().max())
        error /= max(float(reference.abs().max()), rms, 1e-300)
        if not error <= gradients:
            gradients, worst = error, name
    types = {x.dtype for x in found[0]}
    allowed = max((TOLERANCES.get(t, _SHORT_TYPES) for t in types), default=0.0)
    return Verified(outputs, gradients, worst, allowed if tolerance is None else tolerance)
