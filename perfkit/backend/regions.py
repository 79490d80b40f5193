"""Which parts of a graph are worth a polyhedral region.

A region grows around an anchor, an operator where loops pay and Inductor is known to be weak: a
scan, a small batched product, steps of a stencil, a softmax, or a result so large that new pages
for it cost more than computing it. Neighbours that only move or combine elements join it. It must
be convex: no value leaves it and comes back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from perfkit.backend import pricing
from perfkit.backend.capture import NAMESPACES, namespace, operator_name
from perfkit.frontends import fx_accumulate, fx_index, fx_pointwise
from perfkit.ir.expr import DTYPES

LARGEST = 64
"""Operators of a region that compute; more make kernels slow to compile."""

LARGEST_CHAIN = 256
"""The same around a stencil, whose steps become one statement each: a chain that is cut goes
through memory once more."""

SMALL_PRODUCT = 64
"""Rows, columns and inner length up to which a batched product is better fused than called."""

SCANS = ("cumsum", "cumprod")
ACCUMULATING = (
    *SCANS, "sum", "mean", "amax", "amin", "any", "var_mean", "var", "split", "split_with_sizes",
    "unbind",
)  # fmt: skip
PRODUCTS = ("bmm", "baddbmm")
VIEWS = frozenset(
    {"view", "reshape", "_unsafe_view", "squeeze", "unsqueeze", "permute", "transpose", "t",
     "expand", "alias", "detach"}
)  # fmt: skip
"""Operators that cost Inductor nothing; a region neither starts nor ends with one."""

FUSING = frozenset({*fx_pointwise.RULES, *fx_index.HANDLERS, "sum", "mean", "amax", "amin", "any"})
"""Operators that Inductor computes in the loops of their operands."""

LOWERED = frozenset(
    {"getitem", *fx_pointwise.RULES, *fx_index.HANDLERS, *fx_accumulate.HANDLERS}
)


@dataclass(frozen=True)
class Candidate:
    """Nodes for a region, in the graph's order, and the kind of their anchor."""

    kind: str
    nodes: tuple[fx.Node, ...]


def base_of(node: fx.Node) -> str:
    return operator_name(node).partition(".")[0]


def supported(node: fx.Node) -> bool:
    """Whether the operator is one that may be lowered, on CPU tensors with elements."""
    return _is_known(node) and not unsuited(node)


def _is_known(node: fx.Node) -> bool:
    known = node.op == "call_function" and namespace(node) in NAMESPACES
    return known and base_of(node) in LOWERED


def unsuited(node: fx.Node) -> str:
    """What keeps an operator on such tensors out of regions; "" when nothing does."""
    value = node.meta.get("val")
    results = value if isinstance(value, (tuple, list)) else (value,)
    operands = [n.meta.get("val") for n in node.all_input_nodes]
    tensors = [v for v in operands if isinstance(v, Tensor)]
    return next((why for v in (*results, *tensors) if (why := _problem(v))), "")


def _problem(value: object) -> str:
    if not isinstance(value, Tensor):
        return "without a tensor as result"
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        return f"on {dtype}"
    if value.device.type != "cpu" or value.layout != torch.strided:
        return f"on {value.device}, {value.layout}"
    if any(isinstance(n, int) and n == 0 for n in value.shape):
        return "on tensors without elements"
    symbols = (n for n in value.shape if isinstance(n, torch.SymInt))
    if any(n.node.hint is None for n in symbols):
        return "of a size that depends on data"
    return ""


def passing(region: Sequence[fx.Node], outputs: Sequence[fx.Node]) -> tuple[bool, ...]:
    """Which results of a region Inductor alone would keep in registers: it would compute all that
    reads them in the same loops."""
    inside = set(region)
    return tuple(all(u in inside or _fuses(u) for u in node.users) for node in outputs)


def _fuses(node: fx.Node) -> bool:
    if node.op != "call_function":
        return False
    tags = getattr(node.target, "tags", ())
    return torch.Tag.pointwise in tags or base_of(node) in FUSING


def left_out(graph: fx.Graph) -> dict[str, int]:
    """Operators that perfkit knows but not on such tensors, counted by the reason."""
    known = (n for n in graph.nodes if _is_known(n) and base_of(n) not in VIEWS)
    return dict(Counter(why for n in known if (why := unsuited(n))))


# -- anchors ----------------------------------------------------------------------------------


def anchors(graph: fx.Graph, every: bool) -> list[tuple[str, fx.Node]]:
    """Operators to grow regions around, best first; ``every``: reductions of any size too."""
    found: list[tuple[str, fx.Node]] = []
    late: list[tuple[str, fx.Node]] = []
    for node in graph.nodes:
        if not supported(node):
            continue
        base = base_of(node)
        if base in SCANS:
            found.append(("scan", node))
        elif base in PRODUCTS and _is_small(node):
            found.append(("product", node))
        elif base in ("amax", "var_mean"):
            found.append(("normalization", node))
        elif base in ("sum", "mean") and (every or _reads_much(node)):
            late.append(("reduction", node))
        elif base in fx_pointwise.RULES and _bytes(node) >= pricing.LARGE:
            late.append(("elementwise", node))
    found += [("stencil", node) for node in _stencils(graph)]
    late.sort(key=lambda pair: pair[0], reverse=True)
    return found + late


def _bytes(node: fx.Node) -> int:
    """Bytes of a node's value; 0 where sizes are symbols without a value."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return 0
    count = value.element_size()
    for n in value.shape:
        hint = n if isinstance(n, int) else n.node.hint
        count *= int(hint or 0)
    return count


def _reads_much(node: fx.Node) -> bool:
    return any(_bytes(source) >= pricing.LARGE for source in node.all_input_nodes)


def _is_small(node: fx.Node) -> bool:
    left, right = (a.meta["val"] for a in node.all_input_nodes[-2:])
    sizes = (*left.shape[-2:], right.shape[-1])
    return all(isinstance(n, int) and n <= SMALL_PRODUCT for n in sizes)


def _stencils(graph: fx.Graph) -> Iterable[fx.Node]:
    """Slices of tensors that are read at three places or more."""
    for node in graph.nodes:
        slices = [s for s in _slices_of(node) if supported(s)]
        if len(slices) >= 3:
            yield from slices


def _slices_of(node: fx.Node) -> list[fx.Node]:
    """The slices of a tensor, those of slices included, without the ones in between."""
    found = []
    for user in node.users:
        if user.op == "call_function" and base_of(user) == "slice" and user.args[0] is node:
            found += _slices_of(user) or [user]
    return found


# -- growing ----------------------------------------------------------------------------------


def find(graph: fx.Graph, every: bool = False) -> list[Candidate]:
    """Disjoint candidates in the graph's order."""
    position = {node: k for k, node in enumerate(graph.nodes)}
    taken: set[fx.Node] = set()
    found: list[Candidate] = []
    for kind, anchor in anchors(graph, every):
        if anchor in taken:
            continue
        room = LARGEST_CHAIN if kind == "stencil" else LARGEST
        nodes = _grow(anchor, position, taken, room)
        nodes = _trimmed(nodes)
        if not nodes or (anchor not in nodes and kind != "stencil"):
            continue
        taken |= nodes
        ordered = tuple(sorted(nodes, key=position.__getitem__))
        found.append(Candidate(kind, ordered))
    return sorted(found, key=lambda c: position[c.nodes[0]])


def _grow(
    anchor: fx.Node, position: dict[fx.Node, int], taken: set[fx.Node], room: int
) -> set[fx.Node]:
    """The region around an anchor, with up to ``room`` operators that compute."""
    region = {anchor}
    queue = [anchor]
    while queue:
        node = queue.pop(0)
        for near in (*node.users, *node.all_input_nodes):
            if near in region or near in taken or not _joins(near, region):
                continue
            counts = base_of(near) not in fx_index.HANDLERS
            if room >= counts and is_convex(region | {near}, position):
                region.add(near)
                room -= counts
                queue.append(near)
    return region


def _joins(node: fx.Node, region: set[fx.Node]) -> bool:
    if not supported(node):
        return False
    base = base_of(node)
    product = base in fx_accumulate.HANDLERS and base not in ACCUMULATING
    if product and (base not in PRODUCTS or not _is_small(node)):
        return False
    # What others need too is computed once, by Inductor, unless it only moves elements.
    is_producer = any(user in region for user in node.users)
    leaves = any(user not in region for user in node.users)
    if is_producer and leaves and base not in fx_index.HANDLERS:
        return all(supported(user) for user in node.users)
    return True


def is_convex(region: set[fx.Node], position: dict[fx.Node, int]) -> bool:
    """Whether no path leaves the region and returns."""
    last = max(position[n] for n in region)
    queue = [u for n in region for u in n.users if u not in region]
    seen: set[fx.Node] = set()
    while queue:
        node = queue.pop()
        if node in seen or position[node] > last:
            continue
        seen.add(node)
        if node in region:
            return False
        queue.extend(node.users)
    return True


def _trimmed(region: set[fx.Node]) -> set[fx.Node]:
    """Without views at the borders, and without what nobody uses."""
    while True:
        drop = {
            n for n in region
            if base_of(n) in VIEWS and (
                not any(i in region for i in n.all_input_nodes)
                or not any(u in region for u in n.users)
            )
        }  # fmt: skip
        if not drop:
            return region
        region = region - drop


def summary(nodes: Sequence[fx.Node]) -> str:
    """The operators of a region, counted: ``2 x add, exp, sum``."""
    counts: dict[str, int] = {}
    for node in nodes:
        if base_of(node) not in VIEWS and base_of(node) != "getitem":
            counts[base_of(node)] = counts.get(base_of(node), 0) + 1
    return ", ".join(name if n == 1 else f"{n} x {name}" for name, n in counts.items())


__all__ = [
    "Candidate", "base_of", "find", "is_convex", "left_out", "passing", "summary", "supported",
]  # fmt: skip
