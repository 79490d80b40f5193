"""Regions from Python functions, and three ways to run them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch._inductor.decomposition import select_decomp_table
from torch.fx.experimental.proxy_tensor import make_fx

from perfkit.backend import program, reference
from perfkit.backend.capture import Region, capture
from perfkit.backend.check import difference
from perfkit.codegen import interpret
from perfkit.frontends import fx_graph, fx_loops


def region_of(function: Callable[..., Any], *args: torch.Tensor) -> Region:
    """The whole of a function as one region, decomposed as Inductor does."""
    traced = make_fx(
        lambda *a: function(*a), select_decomp_table(), tracing_mode="fake"
    )(*args)
    traced.graph.eliminate_dead_code()
    return capture([n for n in traced.graph.nodes if n.op == "call_function"])


def arguments_of(region: Region, args: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """The arguments in the order in which the region takes them."""
    graph = region.nodes[0].graph
    order = [n for n in graph.nodes if n.op == "placeholder"]
    return [args[order.index(n)] for n in region.inputs]


def interpreted(region: Region, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """The region's loops, run by the oracle."""
    graph = region.graph
    scop, _ = fx_loops.lower(graph)
    arrays: dict[str, Any] = {}
    for (name, tensor), value in zip(graph.inputs, inputs, strict=True):
        steps = reference.strides(tensor, {})
        extents = [e.const for e in tensor.extents] or [1]
        arrays[name] = np.zeros(extents, dtype=tensor.dtype)
        for d, step in enumerate(steps):
            value = value.narrow(d, 0, 1) if step == 0 else value
        torch.from_numpy(arrays[name]).as_strided(value.shape, steps).copy_(value)
    results = []
    for name in graph.outputs:
        tensor = graph.tensor(name)
        extents = [e.const for e in tensor.extents] or [1]
        arrays[f"out_{name}"] = np.zeros(extents, dtype=tensor.dtype)
        shape = reference.shape(tensor, {})
        flat = torch.from_numpy(arrays[f"out_{name}"])
        results.append(flat.as_strided(shape, program.output_strides(tensor, {})))
    interpret.run(scop, {}, arrays, {})
    return results


def compiled(region: Region, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """The region's kernel."""
    spec = program.Spec(fx_graph.dumps(region.graph), "reassociate", "region", 2)
    return program.load(spec.pack())(inputs, ())


def compare(function: Callable[..., Any], *args: torch.Tensor, kernel: bool = False) -> Region:
    """Run a function as a region and in torch; raise AssertionError where they differ."""
    region = region_of(function, *args)
    inputs = arguments_of(region, args)
    found = compiled(region, inputs) if kernel else interpreted(region, inputs)
    eager = reference.run(region.graph, inputs, ())
    exact = reference.run(region.graph, inputs, (), wide=True)
    assert found
    for mine, theirs, truth in zip(found, eager, exact, strict=True):
        problem = difference(mine, theirs, truth)
        assert not problem, problem
    return region
