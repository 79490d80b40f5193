"""Nodes of a torch.fx graph as a :class:`perfkit.frontends.fx_graph.Graph`.

Everything is named by position, so that equal layers of a model give equal regions, which are
compiled once.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor as TorchTensor
from torch import fx

from perfkit.errors import Location, UnsupportedError
from perfkit.frontends.fx_graph import Graph, Node, Ref, Tensor
from perfkit.ir.affine import Affine
from perfkit.ir.expr import DTYPES

NAMESPACES = ("aten", "prims")
DTYPE_PREFIX = "dtype:"
_DROPPED = ("device", "layout", "pin_memory", "memory_format", "requires_grad", "implicit")


@dataclass(frozen=True)
class Region:
    """A captured region.

    Attributes:
        graph: what is computed.
        nodes: the fx nodes it stands for, in the graph's order.
        inputs, outputs: fx nodes, in the order of ``graph.inputs`` and ``graph.outputs``.
        symbols: the SymInt's expression for each of ``graph.sizes``.
    """

    graph: Graph
    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]
    symbols: tuple[Any, ...] = field(default=())


def refuse(node: fx.Node, why: str) -> UnsupportedError:
    return UnsupportedError(Location("<graph>"), operator_name(node), why)


def operator_name(node: fx.Node) -> str:
    """``sum.dim_IntList`` for an aten or prims operator, "getitem", else the target's text."""
    if node.target is operator.getitem:
        return "getitem"
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target).partition(".")[2]
    return str(node.target)


def namespace(node: fx.Node) -> str:
    if node.target is operator.getitem:
        return "aten"
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target.namespace
    return ""


def capture(nodes: Sequence[fx.Node]) -> Region:
    """The region of these nodes, given in the graph's order.

    Raises:
        UnsupportedError: a tensor that cannot be described (layout, element type, symbols).
    """
    inside = set(nodes)
    inputs = list(dict.fromkeys(i for n in nodes for i in n.all_input_nodes if i not in inside))
    outputs = [n for n in nodes if any(u not in inside for u in n.users)]
    outputs = [n for n in outputs if isinstance(n.meta.get("val"), TorchTensor)]
    sizes = _Sizes()
    names = {n: f"a{k}" for k, n in enumerate(inputs)} | {n: f"n{k}" for k, n in enumerate(nodes)}
    described = []
    for node in inputs:
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt):
            continue
        if not isinstance(value, TorchTensor):
            raise refuse(node, "is an input of the region, but no tensor")
        described.append((names[node], layout_of(value, node, sizes)))
    body = tuple(_node(n, names, sizes) for n in nodes)
    tensors = tuple(n for n in inputs if isinstance(n.meta.get("val"), TorchTensor))
    graph = Graph(
        tuple(described), body, tuple(names[n] for n in outputs),
        tuple(sizes.names.values()), {n: sizes.hints[s] for s, n in sizes.names.items()},
    )  # fmt: skip
    return Region(graph, tuple(nodes), tensors, tuple(outputs), tuple(sizes.names))


@dataclass
class _Sizes:
    """Symbols of SymInts, named in the order in which they are met."""

    names: dict[Any, str] = field(default_factory=dict)
    hints: dict[Any, int] = field(default_factory=dict)

    def affine(self, value: Any, node: fx.Node) -> Affine:
        if isinstance(value, int):
            return Affine.constant(value)
        expr = value.node.expr
        terms: dict[str, int] = {}
        constant = 0
        for term, factor in expr.as_coefficients_dict().items():
            if not factor.is_Integer:
                raise refuse(node, f"has the size {expr}")
            if term.is_Integer:
                constant += int(factor) * int(term)
            elif term.is_Symbol:
                terms[self._name(term, value, node)] = int(factor)
            else:
                raise refuse(node, f"has the size {expr}, which is not affine")
        return Affine.build(terms, constant)

    def _name(self, symbol: Any, value: Any, node: fx.Node) -> str:
        if symbol not in self.names:
            known = value.node.shape_env
            values = getattr(known, "backed_var_to_val", None) or known.var_to_val
            hint = values.get(symbol)
            if hint is None:
                raise refuse(node, f"has a size that depends on data ({symbol})")
            self.names[symbol] = f"s{len(self.names)}"
            self.hints[symbol] = int(hint)
        return self.names[symbol]


def layout_of(value: TorchTensor, node: fx.Node, sizes: _Sizes) -> Tensor:
    """How a tensor lies in memory.

    Raises:
        UnsupportedError: other element types, devices and layouts than perfkit's.
    """
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise refuse(node, f"is {dtype}")
    if value.device.type != "cpu" or value.layout != torch.strided:
        raise refuse(node, f"is on {value.device}, {value.layout}")
    shape = tuple(sizes.affine(n, node) for n in value.shape)
    strides = list(value.stride())
    moving = [
        d for d, n in enumerate(value.shape) if not (_is(n, 1) or _is(strides[d], 0))
    ]
    order = sorted(moving, key=lambda d: (-_hint(strides[d]), d))
    extents: list[Affine] = []
    above: Any = None
    for d in order:
        if above is None:
            extents.append(shape[d])
        else:
            extents.append(_ratio(above, strides[d], value.shape[d], node, sizes))
        above = strides[d]
    if order and not _equal(strides[order[-1]], 1):
        raise refuse(node, "has no dimension whose elements are neighbours")
    return Tensor(dtype, shape, tuple(order), tuple(extents))


def _ratio(above: Any, stride: Any, size: Any, node: fx.Node, sizes: _Sizes) -> Affine:
    """The extent of a dimension: how often its stride fits into the next larger one."""
    if _equal(above, stride * size):
        return sizes.affine(size, node)
    if all(isinstance(n, int) for n in (above, stride, size)):
        count, rest = divmod(above, stride)
        if not rest and count >= size:
            return Affine.constant(count)
    raise refuse(node, "has strides that are not those of a dense array or of a slice of one")


def _is(value: Any, number: int) -> bool:
    return isinstance(value, int) and value == number


def _equal(a: Any, b: Any) -> bool:
    """Equality without a guard: of numbers, or of the expressions of SymInts."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    left = a if isinstance(a, int) else a.node.expr
    right = b if isinstance(b, int) else b.node.expr
    return bool(left == right)


def _hint(value: Any) -> int:
    if isinstance(value, int):
        return value
    hint = value.node.hint
    return int(hint) if hint is not None else 1 << 40


def _node(node: fx.Node, names: Mapping[fx.Node, str], sizes: _Sizes) -> Node:
    value = node.meta.get("val")
    result: Tensor | tuple[Tensor, ...]
    if isinstance(value, (tuple, list)):
        result = tuple(_result(v, node, sizes) for v in value)
    elif isinstance(value, TorchTensor):
        result = _result(value, node, sizes)
    else:
        raise refuse(node, f"gives {type(value).__name__}")
    args = tuple(_argument(a, node, names, sizes) for a in node.args)
    kwargs = {
        k: _argument(v, node, names, sizes)
        for k, v in node.kwargs.items() if k not in _DROPPED
    }  # fmt: skip
    return Node(names[node], operator_name(node), args, kwargs, result)


def _result(value: TorchTensor, node: fx.Node, sizes: _Sizes) -> Tensor:
    """The layout that the graph expects, or a dense one where that is not dense."""
    try:
        found = layout_of(value, node, sizes)
    except UnsupportedError:
        found = None
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise refuse(node, f"gives {dtype}")
    shape = tuple(sizes.affine(n, node) for n in value.shape)
    if found is not None and found.extents == tuple(shape[d] for d in found.order):
        rest = tuple(d for d in range(len(shape)) if d not in found.order)
        if all(shape[d] == Affine.constant(1) for d in rest):
            return found
    return Tensor.dense(dtype, shape)


def _argument(value: Any, node: fx.Node, names: Mapping[fx.Node, str], sizes: _Sizes) -> Any:
    match value:
        case fx.Node():
            found = value.meta.get("val")
            if isinstance(found, torch.SymInt):
                return sizes.affine(found, node)
            if isinstance(found, (torch.SymFloat, torch.SymBool)):
                raise refuse(node, f"uses a {type(found).__name__}")
            return Ref(names[value])
        case torch.SymInt():
            return sizes.affine(value, node)
        case torch.dtype():
            return DTYPE_PREFIX + str(value).removeprefix("torch.")
        case tuple() | list():
            return tuple(_argument(v, node, names, sizes) for v in value)
        case None | bool() | int() | float() | str():
            return value
    raise refuse(node, f"has an argument of type {type(value).__name__}")


__all__ = ["DTYPE_PREFIX", "NAMESPACES", "Region", "capture", "namespace", "operator_name"]
