"""What a region costs, here and with Inductor, in seconds: rough figures with a margin on top.

Inductor's code is modelled as the kernels that it would make: elementwise operators and reductions
fuse until a value has to be stored (a step of a stencil, an operand of a product or of a scan), and
scans and products are calls of aten. Rates are per thread, of a server core of 2020 or later.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from perfkit.frontends import fx_accumulate, fx_pointwise
from perfkit.frontends.fx_graph import Graph, Node, Tensor, hinted
from perfkit.frontends.fx_storage import Stored
from perfkit.ir.expr import FLOATS, ITEMSIZE
from perfkit.runtime.machine import Machine

CALL = 3e-5
"""Seconds of one call of our operator: dispatch, checks, threads."""

THEIR_CALL = 5e-6
"""Seconds to start one of Inductor's kernels."""

STREAM = 9e9
"""Bytes per second that a thread moves from and to memory."""

CACHED = 3e10
"""The same for arrays that stay in the last cache, of which others use half."""

SCAN = 2e-9
"""Seconds per element of aten's scans."""

OUR_SCAN = 1.5e-9
"""Seconds per element of ours: the latency of an addition."""

BATCH = 6.5e-7
"""Seconds per matrix of aten's batched product of small ones."""

FLOP = 4e-11
"""Seconds per operation of a small product in our loops."""

SPECIAL = 6e-10
"""Seconds per element of exp and the like, in lanes."""

ACROSS = 3.0
"""How much dearer a product is whose right operand is transposed: its sums run across lanes."""

SIMPLE = 6e-11
"""Seconds per element of an addition, in lanes."""

FRESH = 2.5e-10
"""Seconds per byte of a large result, whose pages are new every time."""

OUR_FRESH = 5e-11
"""The same on large pages (:mod:`perfkit.backend.memory`)."""

LARGE = 1 << 25
"""Bytes from which the allocator always takes new pages (glibc's largest threshold)."""

COUNTED = 6e-10
"""Seconds per element to turn 64-bit integers into floats, which has no lanes before AVX-512."""

CLEAR = 1.02
"""A measured gain below this factor is noise."""

_SPECIAL = frozenset(
    {"exp", "exp2", "log", "log1p", "expm1", "tanh", "sigmoid", "erf", "sin", "cos", "pow"}
)
_CALLS = frozenset({"cumsum", "cumprod", "bmm", "baddbmm", "mm", "addmm"})


def elements(tensor: Tensor, graph: Graph) -> float:
    return float(prod(hinted(n, graph.hints) for n in tensor.shape))


def _bytes(tensor: Tensor, graph: Graph) -> float:
    return elements(tensor, graph) * ITEMSIZE[tensor.dtype]


def _stored_bytes(array: Stored, graph: Graph) -> float:
    return float(prod(hinted(n, graph.hints) for n in array.extents) * ITEMSIZE[array.dtype])


def _result(node: Node) -> Tensor:
    return node.result if isinstance(node.result, Tensor) else node.result[0]


def region_seconds(graph: Graph, threads: int, nests: Sequence[Sequence[Stored]] = ()) -> float:
    """One kernel whose ``nests`` go through these arrays, the repeated ones again.

    Where nothing is known of them, or they are no more than Inductor's kernels, which repeat as
    much: every input read once, every output written once, all else in caches.
    """
    swept = [sum(_stored_bytes(a, graph) for a in nest) for nest in nests]
    heavy = [size for size in swept if size > max(swept) / 4]
    if len(heavy) <= len(_stored(graph)):
        moved = sum(_bytes(t, graph) for _, t in graph.inputs)
        moved += sum(_bytes(graph.tensor(n), graph) for n in graph.outputs)
    else:
        moved = sum(swept)
    work = sum(_work(n, graph, ours=True) for n in graph.nodes)
    fresh = sum(_fresh(graph.tensor(n), graph, OUR_FRESH) for n in graph.outputs)
    return CALL + fresh + (max(moved / _rate(moved), work) + 0.3 * work) / threads


def inductor_seconds(
    graph: Graph, threads: int, passing: frozenset[str] = frozenset()
) -> float:
    """Inductor's kernels one after the other; it does not store the results ``passing``."""
    stored = _stored(graph)
    inputs = dict(graph.inputs)
    seconds = 0.0
    for name in stored:
        node = stored[name]
        sources = _sources(node, graph, frozenset(stored))
        read = sum(
            _bytes(inputs[s] if s in inputs else _result(stored[s]), graph) for s in sources
        )
        kept = name not in passing or node.base in _CALLS
        moved = read + (_bytes(_result(node), graph) if kept else 0.0)
        chain = _chain(node, graph, frozenset(stored))
        work = sum(_work(n, graph, ours=False) for n in chain)
        seconds += THEIR_CALL + max(moved / _rate(moved), work) / threads
        seconds += _fresh(_result(node), graph, FRESH) if kept else 0.0
    return seconds


def _fresh(tensor: Tensor, graph: Graph, rate: float) -> float:
    size = _bytes(tensor, graph)
    return size * rate if size >= LARGE else 0.0


def _rate(moved: float) -> float:
    caches = Machine.detect().caches
    last = caches[-1].bytes // 2 if caches else 1 << 24
    return CACHED if moved < last else STREAM


def _work(node: Node, graph: Graph, ours: bool) -> float:
    base = node.base
    result = _result(node)
    count = elements(result, graph)
    if base in ("cumsum", "cumprod"):
        return count * (OUR_SCAN if ours else SCAN)
    if base in ("bmm", "baddbmm", "mm", "addmm"):
        left = _operand(node, -2, graph)
        inner = hinted(left.shape[-1], graph.hints)
        flops = 2.0 * count * inner
        if ours:
            right = _operand(node, -1, graph)
            across = bool(right.order) and right.order[-1] != len(right.shape) - 1
            return flops * FLOP * (ACROSS if across else 1.0)
        batches = prod(hinted(n, graph.hints) for n in result.shape[:-2])
        return flops * FLOP / 2 + batches * BATCH
    if base in _SPECIAL:
        return count * SPECIAL
    if ours and result.dtype in FLOATS and _counts(node, graph):
        return count * COUNTED
    if base in fx_accumulate.HANDLERS:
        return elements(_operand(node, 0, graph), graph) * SIMPLE
    return count * SIMPLE if base in fx_pointwise.RULES else 0.0


def _operand(node: Node, k: int, graph: Graph) -> Tensor:
    names = _names(node.args)
    wanted = names[k]
    inputs = dict(graph.inputs)
    if wanted in inputs:
        return inputs[wanted]
    return _result(next(n for n in graph.nodes if n.name == wanted))


def _counts(node: Node, graph: Graph) -> bool:
    """Whether an operand is a 64-bit integer."""
    return any(
        _operand(node, k, graph).dtype == "int64" for k in range(len(_names(node.args)))
    )


def _names(value: object) -> list[str]:
    if isinstance(value, tuple):
        return [n for v in value for n in _names(v)]
    name = getattr(value, "name", None)
    return [name] if isinstance(name, str) else []


def _stored(graph: Graph) -> dict[str, Node]:
    """Nodes whose value Inductor keeps in memory."""
    nodes = {n.name: n for n in graph.nodes}
    kept: dict[str, Node] = {}
    slices: dict[str, int] = {}
    for node in graph.nodes:
        if node.base == "slice":
            root = _root(node, nodes)
            slices[root] = slices.get(root, 0) + 1
        if node.base in _CALLS:
            kept[node.name] = node
            for name in _names(node.args):
                root = _root(nodes[name], nodes) if name in nodes else name
                if root in nodes:
                    kept[root] = nodes[root]
    for name, count in slices.items():
        if count >= 3 and name in nodes:
            kept[name] = nodes[name]
    for name in graph.outputs:
        kept[name] = nodes[name]
    return {n.name: n for n in graph.nodes if n.name in kept}


_MOVES = frozenset({"slice", "view", "permute", "expand", "unsqueeze", "squeeze", "select", "t"})


def _root(node: Node, nodes: dict[str, Node]) -> str:
    while node.base in _MOVES:
        name = _names(node.args)[0]
        if name not in nodes:
            return name
        node = nodes[name]
    return node.name


def _chain(node: Node, graph: Graph, stored: frozenset[str]) -> list[Node]:
    """The node and what is computed with it, back to what is stored."""
    nodes = {n.name: n for n in graph.nodes}
    found: dict[str, Node] = {}
    queue = [node]
    while queue:
        current = queue.pop()
        if current.name in found:
            continue
        found[current.name] = current
        for name in _names((current.args, tuple(current.kwargs.values()))):
            if name in nodes and name not in stored:
                queue.append(nodes[name])
    return list(found.values())


def _sources(node: Node, graph: Graph, stored: frozenset[str]) -> set[str]:
    """Inputs and stored values that a kernel reads."""
    inputs = {n for n, _ in graph.inputs}
    return {
        name
        for n in _chain(node, graph, stored)
        for name in _names((n.args, tuple(n.kwargs.values())))
        if (name in stored or name in inputs) and name != node.name
    }


__all__ = ["CLEAR", "LARGE", "inductor_seconds", "region_seconds"]
