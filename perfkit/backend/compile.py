"""The entry point of ``torch.compile(model, backend="perfkit")``.

Inductor compiles everything; a pass of ours gives it some regions as finished operators
(:mod:`perfkit.backend.passes`). It sees graphs after autograd, so training needs nothing of its
own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import fx
from torch._inductor import config as inductor_config
from torch._inductor.compile_fx import compile_fx

from perfkit.backend import eager, measure, options, passes, program, switches
from perfkit.backend.report import Report


def perfkit(
    model: fx.GraphModule,
    inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """The backend; torch.compile calls it with a graph and example inputs.

    Args:
        mode: as for Inductor; "max-autotune" (with or without "-no-cudagraphs") also measures
            every candidate region.
        options: see :class:`perfkit.backend.options.Options`; Inductor's own are passed on.

    Raises:
        BackendError: a mode or an option that is not known.
    """
    return compile_graph(model, inputs, parse_options(mode, options), Report())


parse_options = options.parse


def compile_graph(
    model: fx.GraphModule, inputs: Sequence[Any], chosen: options.Options, report: Report
) -> Callable[..., Any]:
    """Compile one graph, and tell ``report`` what was done."""
    model = switches.fuse(model, inputs, chosen, report)
    timer = measure.against_inductor if chosen.measure else None
    own = passes.Regions(replace(chosen, inductor={}), report, timer)
    if chosen.fallback == "eager":
        return eager.compile_graph(model, inputs, own)
    configured = inductor_config.post_grad_custom_pre_pass
    found: Callable[..., Any] = compile_fx(
        model, inputs, config_patches=passes.patches(own, configured, chosen.inductor)
    )
    return found


def reset() -> None:
    """Forget the kernels that this process holds; torch.compiler.reset() calls it."""
    program.load.cache_clear()


perfkit.reset = reset  # type: ignore[attr-defined]

__all__ = ["compile_graph", "perfkit", "reset"]
