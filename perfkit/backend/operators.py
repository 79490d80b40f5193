"""``torch.ops.perfkit_backend.region``: a compiled region as one operator of Inductor's graphs.

The region travels as text in the operator's argument, so code that Inductor cached in another
process finds its kernel, or makes it again.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from perfkit import log
from perfkit.backend import program, reference
from perfkit.backend.program import Program, Spec
from perfkit.errors import PerfkitError
from perfkit.frontends import fx_graph
from perfkit.frontends.fx_graph import Graph

NAMESPACE = "perfkit_backend"

# Kept for the life of the module: the operator vanishes with it.
_LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")
_LIBRARY.define("region(str spec, Tensor[] inputs, SymInt[] sizes) -> Tensor[]")
region = getattr(torch.ops, NAMESPACE).region.default


@functools.lru_cache(maxsize=512)
def _graph(spec: str) -> Graph:
    return fx_graph.loads(Spec.unpack(spec).graph)


@functools.lru_cache(maxsize=512)
def _program(spec: str) -> Program | None:
    """The kernel; None, with one warning, when it cannot be made in this process."""
    try:
        return program.load(spec)
    except (PerfkitError, OSError) as error:
        log.get("backend").warning("a region runs in eager torch: %s", error)
        return None


def _run(spec: str, inputs: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    found = _program(spec)
    if found is not None:
        try:
            return found(inputs, sizes)
        except PerfkitError as error:
            log.get("backend").warning("a region runs in eager torch: %s", error)
    program.counters().fallbacks += 1
    return eager(_graph(spec), inputs, sizes)


def eager(graph: Graph, inputs: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """The region by torch's operators, with the strides that the operator promises."""
    named = dict(zip(graph.sizes, sizes, strict=True))
    results = []
    for name, value in zip(graph.outputs, reference.run(graph, inputs, sizes), strict=True):
        strides = program.output_strides(graph.tensor(name), named)
        fresh = torch.empty_strided(value.shape, strides, dtype=value.dtype)
        results.append(fresh.copy_(value))
    return results


def _fake(spec: str, inputs: Sequence[Tensor], sizes: Sequence[Any]) -> list[Tensor]:
    graph = _graph(spec)
    named = dict(zip(graph.sizes, sizes, strict=True))
    results = []
    for name in graph.outputs:
        tensor = graph.tensor(name)
        shape = reference.shape(tensor, named)
        strides = program.output_strides(tensor, named)
        dtype = getattr(torch, tensor.dtype)
        results.append(torch.empty_strided(shape, strides, dtype=dtype, device="cpu"))
    return results


_LIBRARY.impl("region", _run, "CPU")
_LIBRARY.impl("region", _run, "CompositeExplicitAutograd")
torch.library.register_fake(f"{NAMESPACE}::region", _fake, lib=_LIBRARY)

__all__ = ["NAMESPACE", "eager", "region"]
