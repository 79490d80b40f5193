"""``perfkit.backend.explain``: what became of a model, region by region."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._inductor import config as inductor_config

from perfkit.backend.compile import compile_graph, parse_options
from perfkit.backend.report import Report


def explain(
    model: Callable[..., Any],
    *args: Any,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
    backward: bool = False,
    **kwargs: Any,
) -> Report:
    """Compile ``model`` afresh for these arguments, run it once, and tell what was done.

    Args:
        mode, options: as for torch.compile.
        backward: also run a backward pass through the sum of the results.

    Returns:
        The report; ``str()`` of it lists regions, times, schedules and reasons.

    Raises:
        BackendError: an option is not known, or ``strict`` met a problem.
    """
    chosen = parse_options(mode, options)
    report = Report()
    backend = functools.partial(compile_graph, chosen=chosen, report=report)
    # Inductor's caches would answer without running our pass.
    with inductor_config.patch(force_disable_caches=True):
        result = torch.compile(model, backend=backend)(*args, **kwargs)
        if backward:
            tensors = [t for t in torch.utils._pytree.tree_leaves(result) if _trains(t)]
            sum(t.sum() for t in tensors).backward()
    return report


def _trains(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad


__all__ = ["explain"]
