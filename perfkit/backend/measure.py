"""A region timed against Inductor's own code for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._inductor import config as inductor_config
from torch._inductor.compile_fx import compile_fx

from perfkit.backend import reference
from perfkit.backend.program import Program
from perfkit.errors import BackendError
from perfkit.frontends.fx_graph import Graph
from perfkit.runtime.measure import interleaved, time_python

ROUNDS = 5
ENOUGH = 0.2


def against_inductor(graph: Graph, made: Program, sizes: Sequence[int]) -> tuple[float, float]:
    """Median seconds of the kernel and of Inductor's code, interleaved.

    Raises:
        BackendError: Inductor does not compile the region.
    """
    inputs = reference.example(graph, sizes)
    theirs = elsewhere(lambda: inductor_form(graph, inputs, sizes))
    calls = [time_python(lambda: made(inputs, sizes)), time_python(lambda: theirs(*inputs))]
    mine, inductor = interleaved(calls, ROUNDS, keep=[0, 1], enough=ENOUGH)
    if inductor.error or mine.error:
        raise BackendError(f"the region cannot be timed: {inductor.error or mine.error}")
    return mine.median, inductor.median


def inductor_form(
    graph: Graph, inputs: Sequence[Tensor], sizes: Sequence[int]
) -> Callable[..., Any]:
    """The region as Inductor alone compiles it, for inputs like these."""

    module = fx.GraphModule(torch.nn.Module(), as_fx(graph, sizes))
    with torch.no_grad(), inductor_config.patch(post_grad_custom_pre_pass=None):
        found: Callable[..., Any] = compile_fx(module, list(inputs))
    return found


def as_fx(graph: Graph, sizes: Sequence[int]) -> fx.Graph:
    """The region as a torch.fx graph of its operators."""
    named = dict(zip(graph.sizes, sizes, strict=True))
    result = fx.Graph()
    values: dict[str, Any] = {name: result.placeholder(name) for name, _ in graph.inputs}
    for node in graph.nodes:
        args = reference.resolve(node.args, values, named)
        kwargs = reference.resolve(dict(node.kwargs), values, named)
        call = result.call_function(reference.function(node), tuple(args), kwargs)
        values[node.name] = call
    result.output([values[name] for name in graph.outputs])
    return result


def elsewhere(work: Callable[[], Any]) -> Any:
    """Run on a thread of its own, where no compilation is under way."""
    results: list[Any] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise BackendError(f"Inductor does not compile the region: {errors[0]}") from errors[0]
    return results[0]


__all__ = ["against_inductor", "inductor_form"]
