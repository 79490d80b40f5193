"""A region run operator by operator in eager torch: what kernels are checked against, and the way
out when a kernel cannot be used."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor as TorchTensor

from perfkit.backend.capture import DTYPE_PREFIX, NAMESPACES
from perfkit.errors import GraphError
from perfkit.frontends.fx_graph import Graph, Node, Ref, Tensor
from perfkit.ir.affine import Affine


def run(
    graph: Graph,
    inputs: Sequence[TorchTensor],
    sizes: Sequence[int],
    *,
    wide: bool = False,
) -> list[TorchTensor]:
    """The results of a region; ``wide``: all floating point in float64."""
    named = dict(zip(graph.sizes, map(int, sizes), strict=True))
    values: dict[str, Any] = dict(zip((n for n, _ in graph.inputs), inputs, strict=True))
    if wide:
        values = {n: v.double() if v.is_floating_point() else v for n, v in values.items()}
    for node in graph.nodes:
        args = resolve(node.args, values, named, wide)
        kwargs = resolve(dict(node.kwargs), values, named, wide)
        if node.base == "iota":
            kwargs |= {"device": "cpu", "requires_grad": False}
        values[node.name] = function(node)(*args, **kwargs)
    return [values[name] for name in graph.outputs]


def function(node: Node) -> Any:
    """The torch operator of a node."""
    if node.base == "getitem":
        return operator.getitem
    if node.base in ("view", "_unsafe_view"):
        return torch.ops.aten.reshape.default
    base, _, overload = node.op.partition(".")
    for space in NAMESPACES:
        packet = getattr(getattr(torch.ops, space), base, None)
        if packet is not None and overload in packet.overloads():
            return getattr(packet, overload)
    raise GraphError(f"{node.op}: this torch has no such operator")


def resolve(
    value: Any, values: Mapping[str, Any], sizes: Mapping[str, int], wide: bool = False
) -> Any:
    """An argument of a node with the values of what it refers to."""
    match value:
        case Ref(name=name):
            return values[name]
        case Affine():
            return value.evaluate(sizes)
        case str() if value.startswith(DTYPE_PREFIX):
            dtype = getattr(torch, value.removeprefix(DTYPE_PREFIX))
            return torch.float64 if wide and dtype.is_floating_point else dtype
        case tuple():
            return [resolve(v, values, sizes, wide) for v in value]
        case dict():
            return {k: resolve(v, values, sizes, wide) for k, v in value.items()}
    return value


def strides(tensor: Tensor, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The strides that a layout describes, in elements."""
    result = [0] * len(tensor.shape)
    step = 1
    for d, extent in zip(reversed(tensor.order), reversed(tensor.extents), strict=True):
        result[d] = step
        step *= extent.evaluate(sizes)
    return tuple(result)


def shape(tensor: Tensor, sizes: Mapping[str, Any]) -> tuple[Any, ...]:
    """The sizes of a tensor; also of SymInts."""
    return tuple(
        sum((c * sizes[n] for n, c in extent.terms), start=extent.const) for extent in tensor.shape
    )


def example(graph: Graph, sizes: Sequence[int], seed: int = 0) -> list[TorchTensor]:
    """Random inputs with the layouts that the region expects."""
    generator = torch.Generator().manual_seed(seed)
    named = dict(zip(graph.sizes, sizes, strict=True))
    result = []
    for _, tensor in graph.inputs:
        dims, steps = shape(tensor, named), strides(tensor, named)
        dtype = getattr(torch, tensor.dtype)
        need = 1 + sum((n - 1) * s for n, s in zip(dims, steps, strict=True))
        if dtype.is_floating_point:
            memory = torch.randn(need, generator=generator, dtype=dtype)
        elif dtype == torch.bool:
            memory = torch.rand(need, generator=generator) < 0.5
        else:
            memory = torch.randint(0, 4, (need,), generator=generator).to(dtype)
        result.append(memory.as_strided(dims, steps))
    return result


__all__ = ["example", "function", "resolve", "run", "shape", "strides"]
