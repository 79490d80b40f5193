"""A region of an aten graph as plain data, and as text.

What :mod:`perfkit.frontends.fx_loops` lowers to loops. It holds no torch object, so it can be kept
in caches, sent to another process and printed into a reproducer. Sizes are affine in named symbols
(``Graph.sizes``, the SymInts of a dynamic graph).
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from perfkit.errors import GraphError
from perfkit.ir.affine import Affine

Shape = tuple[Affine, ...]


@dataclass(frozen=True, slots=True)
class Ref:
    """An argument that is the result of another node, or an input."""

    name: str


@dataclass(frozen=True, slots=True)
class Tensor:
    """Element type, sizes, and how the elements lie in memory.

    ``order`` lists the dimensions from the slowest to the fastest; one that is missing does not
    move the address (size 1, or expanded). ``extents`` are the sizes of the dense array that the
    elements are part of, in that order: larger than the tensor where it is a slice.
    """

    dtype: str
    shape: Shape
    order: tuple[int, ...]
    extents: Shape

    @staticmethod
    def dense(dtype: str, shape: Shape, order: tuple[int, ...] | None = None) -> Tensor:
        if order is None:
            order = tuple(d for d, n in enumerate(shape) if n != Affine.constant(1))
        return Tensor(dtype, shape, order, tuple(shape[d] for d in order))


@dataclass(frozen=True, slots=True)
class Node:
    """One operator call: ``op`` is aten's name with its overload, such as ``sum.dim_IntList``.

    ``result`` describes the value; a tuple for operators with several.
    """

    name: str
    op: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Tensor | tuple[Tensor, ...]

    @property
    def base(self) -> str:
        """The operator without its overload."""
        return self.op.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Graph:
    """A region: nodes in an order in which they can run.

    ``hints`` are typical values of ``sizes``; they guide choices and bound nothing.
    """

    inputs: tuple[tuple[str, Tensor], ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    sizes: tuple[str, ...] = ()
    hints: Mapping[str, int] = field(default_factory=dict)

    def tensor(self, name: str) -> Tensor:
        """The type of an input or of a node with one result."""
        for found, tensor in self.inputs:
            if found == name:
                return tensor
        for node in self.nodes:
            if node.name == name and isinstance(node.result, Tensor):
                return node.result
        raise GraphError(f"{name}: no tensor of that name in the region")


def hinted(extent: Affine, hints: Mapping[str, int]) -> int:
    """The value of an extent at the typical sizes."""
    return extent.evaluate(hints)


# -- text -------------------------------------------------------------------------------------


def dumps(graph: Graph) -> str:
    """JSON; equal graphs give equal texts."""
    record = {
        "inputs": [[name, _tensor_out(t)] for name, t in graph.inputs],
        "nodes": [
            [n.name, n.op, _out(n.args), _out(dict(n.kwargs)), _result_out(n.result)]
            for n in graph.nodes
        ],
        "outputs": list(graph.outputs),
        "sizes": list(graph.sizes),
        "hints": dict(graph.hints),
    }
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def loads(text: str) -> Graph:
    """Raises GraphError for what :func:`dumps` did not write."""
    try:
        record = json.loads(text)
        return Graph(
            tuple((name, _tensor_in(t)) for name, t in record["inputs"]),
            tuple(
                Node(name, op, _in(args), _in(kwargs), _result_in(result))
                for name, op, args, kwargs, result in record["nodes"]
            ),
            tuple(record["outputs"]),
            tuple(record["sizes"]),
            record["hints"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise GraphError(f"not the text of a region: {error}") from error


def packed(text: str) -> str:
    """A short printable form of a long text, for use as an argument."""
    return base64.b85encode(zlib.compress(text.encode(), 9)).decode()


def unpacked(text: str) -> str:
    """Raises GraphError for what :func:`packed` did not write."""
    try:
        return zlib.decompress(base64.b85decode(text)).decode()
    except (ValueError, zlib.error) as error:
        raise GraphError(f"not a packed region: {error}") from error


def _size_out(size: Affine) -> Any:
    return size.const if size.is_constant else [size.const, dict(size.terms)]


def _size_in(data: Any) -> Affine:
    return Affine.constant(data) if isinstance(data, int) else Affine.build(data[1], data[0])


def _tensor_out(t: Tensor) -> list[Any]:
    return [t.dtype, list(map(_size_out, t.shape)), list(t.order), list(map(_size_out, t.extents))]


def _tensor_in(data: Any) -> Tensor:
    dtype, shape, order, extents = data
    return Tensor(
        dtype, tuple(map(_size_in, shape)), tuple(order), tuple(map(_size_in, extents))
    )


def _result_out(result: Tensor | tuple[Tensor, ...]) -> Any:
    if isinstance(result, Tensor):
        return {"one": _tensor_out(result)}
    return {"many": [_tensor_out(t) for t in result]}


def _result_in(data: Any) -> Tensor | tuple[Tensor, ...]:
    return _tensor_in(data["one"]) if "one" in data else tuple(map(_tensor_in, data["many"]))


def _out(value: Any) -> Any:
    match value:
        case Ref():
            return {"ref": value.name}
        case Affine():
            return {"size": _size_out(value)}
        case tuple() | list():
            return list(map(_out, value))
        case dict():
            return {"map": {k: _out(v) for k, v in value.items()}}
        case None | bool() | int() | float() | str():
            return value
    raise GraphError(f"{type(value).__name__} is no argument that a region can have")


def _in(data: Any) -> Any:
    if isinstance(data, list):
        return tuple(map(_in, data))
    if isinstance(data, dict):
        if "ref" in data:
            return Ref(data["ref"])
        if "size" in data:
            return _size_in(data["size"])
        return {k: _in(v) for k, v in data["map"].items()}
    return data


__all__ = [
    "Graph", "Node", "Ref", "Shape", "Tensor", "dumps", "hinted", "loads", "packed", "unpacked",
]  # fmt: skip
