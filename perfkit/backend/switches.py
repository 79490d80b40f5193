"""Switch and attention markers of a graph before autograd: together they become the fused operator.

The markers are perfkit's own: ``dsp.switch`` leaves ``perfkit_dsp::switch`` in the graph that
Dynamo hands to a backend. Where q, k and v are switched, attended along the axis that was sharded
and the result is switched back (or only one of both), with nothing but views in between, the same
is one call of ``perfkit::switch_attention``, which exchanges through shared memory beside the
arithmetic and has a backward of its own. Views are followed as permutations and groupings of the
marker's dimensions; what they are otherwise leaves the graph as it was.

Ranks must decide alike, whatever their shards and guards: only global facts enter the price. The
same tensors travel either way, so the cheaper way does not change with their sizes.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.symbolic_shapes import statically_known_true

from perfkit import log
from perfkit.backend.options import Options
from perfkit.backend.report import RegionReport, Report
from perfkit.comm.group import resolve
from perfkit.dsp.kernels import segment_prices
from perfkit.errors import BackendError
from perfkit.ops.attention_cpu import MAX_HEAD_DIM
from perfkit.ops.switch_attention import switch_attention

Groups = list[tuple[int, ...]]
"""For each dimension of a view, the dimensions of the marker's tensor that it is made of."""

_SWITCH = "perfkit_dsp.switch"
_OPERATOR = torch.ops.perfkit.switch_attention.default
_REORDER = frozenset({"permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims"})
_REGROUP = frozenset({"flatten", "reshape", "view", "unflatten", "unsqueeze", "squeeze"})
_SAME = frozenset({"contiguous"})
_TYPES = (torch.float32, torch.bfloat16)
_NAME = switch_attention.__name__


class _Unsuited(Exception):
    """Why an attention beside a switch stays as it is."""


@dataclass(frozen=True)
class _Input:
    """q, k or v: where it comes from, and which of its dimensions is what.

    ``lead`` lists what is in front of rows and features in the attention, the positions included.
    """

    source: fx.Node
    picks: tuple[tuple[int, int], ...]  # (dimension, index) that unbind took away
    groups: Groups
    rows: int
    features: int
    switch: fx.Node | None
    path: tuple[fx.Node, ...]  # what becomes unused
    dims: int  # of the source

    @property
    def lead(self) -> list[int]:
        return [atom for group in self.groups[:-2] for atom in group]


def fuse(
    model: fx.GraphModule, inputs: Sequence[Any], options: Options, report: Report
) -> fx.GraphModule:
    """The graph with fused operators; the same object where there are none to make.

    Raises:
        BackendError: with ``strict``, an attention beside a switch that cannot be fused.
    """
    if not any(map(_is_switch, model.graph.nodes)):
        return model
    keep = torch.is_grad_enabled() and any(
        isinstance(x, Tensor) and x.requires_grad for x in (*inputs, *model.parameters())
    )
    graph = copy.deepcopy(model.graph)
    try:
        kept = _rewritten(graph, keep, options, report)
    except BackendError:
        raise
    except Exception as error:
        # A mistake here must not cost the user the model.
        if options.strict:
            raise
        report.switches.clear()
        log.get("backend").warning(
            "switches around attention stay as they are (%s: %s): please report this",
            type(error).__name__, error,
        )  # fmt: skip
        return model
    return fx.GraphModule(model, graph) if kept else model


def _rewritten(graph: fx.Graph, keep: bool, options: Options, report: Report) -> int:
    """How many attentions of the graph were fused with switches."""
    kept = 0
    for node in [n for n in graph.nodes if _name(n) == "scaled_dot_product_attention"]:
        try:
            found = _fused(graph, node, keep)
        except _Unsuited as reason:
            found = RegionReport(_NAME, "attention beside a switch", False, str(reason))
            if options.strict:
                raise BackendError(f"strict: {_NAME}: {reason}") from reason
        if found is not None:
            report.switches.append(found)
            kept += found.kept
            log.get("backend").info("%s: %s", found.operators, found.reason)
    if kept:
        graph.eliminate_dead_code()
        graph.lint()
    return kept


def _fused(graph: fx.Graph, node: fx.Node, keep: bool) -> RegionReport | None:
    """Replace what is around one attention; None where no switch is."""
    call = _arguments(node)
    given = [_input(x) for x in (call["query"], call["key"], call["value"])]
    down = _down(node)
    if all(x.switch is None for x in given) and down is None:
        return None
    pull = given[0].switch is not None
    if any((x.switch is not None) != pull for x in given):
        raise _Unsuited("of q, k and v only some are switched")
    _check(call, given)
    first = given[0].switch if pull else down and down[0]
    assert first is not None
    group, size = first.args[1], first.args[4]
    positions = _positions(given, down)
    for x in given:
        if x.switch is not None and (x.switch.args[1] != group or x.switch.args[4] != size):
            raise _Unsuited("q, k and v are switched by different groups or lengths")
    push = None if down is None else _output(node, down, given, positions)
    if not pull and push is None:
        return None
    if pull and push is not None and down is not None and down[0].args[1] != group:
        push = None  # another group's switch stays a switch
    ranks = resolve(str(group)).size
    moved = [*(_bytes(x.source) for x in given)] if pull else []
    moved += [_bytes(down[0])] if push is not None and down is not None else []
    prices = segment_prices([b * (1 - 1 / ranks) for b in moved], ranks)
    what = f"{len(moved)} x switch and attention"
    if prices.chosen != "fused":
        return RegionReport(_NAME, what, False, prices.line())
    _replace(graph, node, call, given, positions, down if push is not None else None, push, keep)
    return RegionReport(_NAME, what, True, prices.line())


def _check(call: Mapping[str, Any], given: Sequence[_Input]) -> None:
    """Refuse what the fused kernels do not take."""
    if call["attn_mask"] is not None or call["dropout_p"] or call["enable_gqa"]:
        raise _Unsuited("it has a mask, dropout or grouped heads")
    if not isinstance(call["is_causal"], bool) or isinstance(call["scale"], fx.Node):
        raise _Unsuited("is_causal or scale is computed in the graph")
    values = [_value(call[n]) for n in ("query", "key", "value")]
    if any(v.device.type != "cpu" or v.dtype != values[0].dtype for v in values):
        raise _Unsuited("it is not on the CPU, or its types differ")
    if values[0].dtype not in _TYPES or torch.is_autocast_enabled("cpu"):
        raise _Unsuited("the fused kernels take float32 and bfloat16, without autocast")
    if any(not isinstance(v.shape[-1], int) or v.shape[-1] > MAX_HEAD_DIM for v in values):
        raise _Unsuited(f"the head dimension is not a known number up to {MAX_HEAD_DIM}")
    for other in values[1:]:
        shapes = zip(values[0].shape[:-1], other.shape[:-1], strict=False)
        if other.ndim != values[0].ndim or not all(_equal(a, b) for a, b in shapes):
            raise _Unsuited("q, k and v have different shapes")
    if any(len(x.lead) != len(given[0].lead) or not 1 <= len(x.lead) <= 3 for x in given):
        raise _Unsuited("there are more than two dimensions beside rows, positions and features")


def _positions(given: Sequence[_Input], down: tuple[fx.Node, Groups] | None) -> int:
    """Which of the leading dimensions the other axis is, counted in ``lead``."""
    if given[0].switch is None:
        assert down is not None
        switch, groups = down
        found = groups[_dims(switch)[0]]
        if len(found) != 1 or found[0] >= len(given[0].lead):
            raise _Unsuited("the axis that is gathered again is not one of its own")
        return found[0]
    places = []
    for x in given:
        assert x.switch is not None
        to_dim = _dims(x.switch)[1]
        if to_dim not in x.lead:
            raise _Unsuited("the axis that becomes sharded is not beside the attention")
        places.append(x.lead.index(to_dim))
    if len(set(places)) != 1:
        raise _Unsuited("q, k and v have their axes in different orders")
    return places[0]


# -- following views ---------------------------------------------------------------------------


def _input(node: fx.Node) -> _Input:
    """Up from an operand of the attention, through views, to its switch if there is one."""
    path: list[fx.Node] = []
    at = node
    while (_is_view(at) or _is_part(at)) and isinstance(at.args[0], fx.Node):
        path.append(at)
        at = at.args[0]
    ndim = _value(node).ndim
    plain = _Input(
        node, (), [(d,) for d in range(ndim)], ndim - 2, ndim - 1, None, (), ndim
    )
    if not _is_switch(at):
        return plain
    inside = {node, *path, at}
    if any(user not in inside for x in (*path, at) if x is not node for user in x.users
           if not (_name(user) == "getitem" and _name(x) == "unbind")):  # fmt: skip
        raise _Unsuited("something else uses what is switched")
    groups: Groups = [(d,) for d in range(_value(at).ndim)]
    sizes = dict(enumerate(_value(at).shape))
    picks: list[tuple[int, int]] = []
    for view in reversed(path):
        if _name(view) == "unbind":
            continue
        if _is_part(view):
            unbind, index = view.args[0], view.args[1]
            assert isinstance(unbind, fx.Node) and isinstance(index, int)
            dim = unbind.args[1] if len(unbind.args) > 1 else unbind.kwargs.get("dim", 0)
            assert isinstance(dim, int)
            (taken,) = _alone(groups, dim)
            picks.append((taken, index % _static(sizes[taken])))
            groups.pop(dim % len(groups))
        else:
            groups = _viewed(view, groups, sizes)
    if len(groups) < 3:
        raise _Unsuited("it has fewer than three dimensions")
    (rows,), (features,) = _alone(groups, -2), _alone(groups, -1)
    if rows != _dims(at)[0]:
        raise _Unsuited("it attends along another axis than the one that was sharded")
    source = at.args[0]
    assert isinstance(source, fx.Node)
    dims = _value(source).ndim
    return _Input(source, tuple(picks), groups, rows, features, at, (*path, at), dims)


def _down(node: fx.Node) -> tuple[fx.Node, Groups] | None:
    """From the attention, through views, to the one switch that uses it, with what its
    dimensions are: the leading ones of the attention, its rows (-2) and features (-1).
    """
    value = _value(node)
    groups: Groups = [*((d,) for d in range(value.ndim - 2)), (-2,), (-1,)]
    sizes = {group[0]: n for group, n in zip(groups, value.shape, strict=True)}
    at = node
    while len(at.users) == 1:
        (user,) = at.users
        if _is_switch(user):
            return user, groups
        if not _is_view(user):
            return None
        try:
            groups = _viewed(user, groups, sizes)
        except _Unsuited:
            return None
        at = user
    return None


def _output(
    node: fx.Node, down: tuple[fx.Node, Groups], given: Sequence[_Input], positions: int
) -> Groups | None:
    """The form of the switched result in terms of ``lead``; None where its switch is not ours."""
    switch, groups = down
    # A leading dimension of the attention may itself group several of the marker's.
    members: list[tuple[int, ...]] = []
    start = 0
    for group in given[0].groups[:-2]:
        members.append(tuple(range(start, start + len(group))))
        start += len(group)
    found = [tuple(b for a in g for b in (members[a] if a >= 0 else (a,))) for g in groups]
    from_dim, to_dim = _dims(switch)
    if found[from_dim] != (positions,) or found[to_dim] != (-2,):
        if given[0].switch is None:
            raise _Unsuited("what is switched after it is not the axis that it attends along")
        return None
    return found


def _alone(groups: Groups, dim: int) -> tuple[int]:
    found = groups[dim]
    if len(found) != 1:
        raise _Unsuited("rows, features or parts share a dimension with something else")
    return (found[0],)


def _viewed(node: fx.Node, groups: Groups, sizes: Mapping[int, Any]) -> Groups:
    """The groups after one view."""
    name = _name(node)
    if name in _SAME:
        return groups
    if name in _REORDER:
        # Strides tell where each dimension goes.
        count = len(groups)
        probe = torch.empty(1).as_strided([1] * count, list(range(1, count + 1)))
        order = getattr(torch.Tensor, name)(probe, *node.args[1:], **node.kwargs).stride()
        return [groups[s - 1] for s in order]
    return _regrouped([a for g in groups for a in g], sizes, _value(node).shape)


def _regrouped(atoms: list[int], sizes: Mapping[int, Any], shape: Sequence[Any]) -> Groups:
    """Consecutive dimensions as those of ``shape``, each a product of some of them."""
    groups: Groups = []
    left = list(atoms)
    for want in shape:
        group: list[int] = []
        have: Any = 1
        if _equal(want, 1) and left and _equal(sizes[left[0]], 1):
            group.append(left.pop(0))
        while left and not _equal(have, want):
            group.append(left.pop(0))
            have = have * sizes[group[-1]]
        if not _equal(have, want):
            raise _Unsuited("a view between cuts a dimension")
        groups.append(tuple(group))
    while left and groups and _equal(sizes[left[0]], 1):
        groups[-1] += (left.pop(0),)
    if left:
        raise _Unsuited("a view between cuts a dimension")
    return groups


# -- replacing ---------------------------------------------------------------------------------


def _replace(
    graph: fx.Graph, node: fx.Node, call: Mapping[str, Any], given: Sequence[_Input],
    positions: int, down: tuple[fx.Node, Groups] | None, push: Groups | None, keep: bool,
) -> None:  # fmt: skip
    """The fused operator in the place of the attention, its rows as dimension 1 (T)."""
    q = given[0]
    pull = q.switch is not None
    others = [n for n in range(len(q.lead)) if n != positions]
    with graph.inserting_before(node):
        laid = [_laid(graph, x, positions, others) for x in given]
        if q.switch is not None:
            rows: Any = q.switch.args[4]
        else:
            rows = graph.call_method("size", (q.source, -2))
        if down is not None:
            total: Any = down[0].args[4]
        else:
            total = graph.call_method("size", (q.source, q.lead[positions]))
        scale = call["scale"]
        if scale is None:
            scale = 1.0 / math.sqrt(_value(call["query"]).shape[-1])
        first = q.switch if q.switch is not None else down[0] if down is not None else node
        results = graph.call_function(
            _OPERATOR,
            (*laid, None, keep, first.args[1], 1, [rows, total], pull, push is not None,
             call["is_causal"], float(scale), 0, False, first.args[5], 0.0),
        )  # fmt: skip
        out = graph.call_function(operator.getitem, (results, 0))
        # [batch, rows, positions, heads, features] in terms of ``lead``, absent ones dropped.
        if len(others) < 2:
            out = graph.call_method("squeeze", (out, 0))
        if not others:
            out = graph.call_method("squeeze", (out, 2))
        have = [*others[:-1], -2, positions, *others[-1:], -1]
        groups = push if push is not None else _lead_groups(q)
        last = down[0] if push is not None and down is not None else node
        out = _formed(graph, out, have, groups)
    out.meta.update(last.meta)
    last.replace_all_uses_with(out)


def _lead_groups(q: _Input) -> Groups:
    """The form of the attention's own result."""
    groups: Groups = []
    start = 0
    for group in q.groups[:-2]:
        groups.append(tuple(range(start, start + len(group))))
        start += len(group)
    return [*groups, (-2,), (-1,)]


def _laid(graph: fx.Graph, x: _Input, positions: int, others: list[int]) -> fx.Node:
    """``[batch, rows, positions, heads, features]`` as a view of what came before the switch."""
    at, atoms = x.source, list(range(x.dims))
    for dim, index in x.picks:
        at = graph.call_method("select", (at, atoms.index(dim), index))
        atoms.remove(dim)
    order = [x.lead[n] for n in others[:-1]] + [x.rows, x.lead[positions]]
    order += [x.lead[n] for n in others[-1:]] + [x.features]
    at = graph.call_method("permute", (at, tuple(atoms.index(a) for a in order)))
    if not others:
        at = graph.call_method("unsqueeze", (at, 2))
    if len(others) < 2:
        at = graph.call_method("unsqueeze", (at, 0))
    return at


def _formed(graph: fx.Graph, at: fx.Node, have: list[int], groups: Groups) -> fx.Node:
    """A view of ``at``, whose dimensions are ``have``, with the groups as dimensions."""
    order = [have.index(a) for group in groups for a in group]
    if order != sorted(order):
        at = graph.call_method("permute", (at, tuple(order)))
    for dim, group in enumerate(groups):
        if not group:
            at = graph.call_method("unsqueeze", (at, dim))
        elif len(group) > 1:
            at = graph.call_method("flatten", (at, dim, dim + len(group) - 1))
    return graph.call_method("contiguous", (at,))


# -- reading nodes -----------------------------------------------------------------------------


def _name(node: fx.Node) -> str:
    """Of a method or function; operators with their namespace."""
    if node.op == "call_method":
        return str(node.target)
    if node.op != "call_function":
        return ""
    if isinstance(node.target, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        return ".".join(str(node.target).split(".")[:2])
    return str(getattr(node.target, "__name__", ""))


def _is_switch(node: fx.Node) -> bool:
    return _name(node) == _SWITCH and len(node.args) == 6 and not node.kwargs


def _dims(switch: fx.Node) -> tuple[int, int]:
    """From which dimension to which one it moves the sharding."""
    found = switch.args[2:4]
    if not all(isinstance(d, int) for d in found):
        raise _Unsuited("a switch's dimensions are computed in the graph")
    return int(str(found[0])), int(str(found[1]))


def _is_view(node: fx.Node) -> bool:
    if _name(node) in _REORDER:
        return not any(isinstance(a, fx.Node) for a in (*node.args[1:], *node.kwargs.values()))
    return _name(node) in _REGROUP | _SAME


def _is_part(node: fx.Node) -> bool:
    """One of the tensors that unbind gives, or the unbind."""
    if _name(node) == "unbind":
        return True
    return (
        _name(node) == "getitem"
        and isinstance(node.args[0], fx.Node)
        and _name(node.args[0]) == "unbind"
        and isinstance(node.args[1], int)
    )


def _arguments(node: fx.Node) -> dict[str, Any]:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    found: dict[str, Any] = dict.fromkeys(names)
    found |= {"dropout_p": 0.0, "is_causal": False, "enable_gqa": False}
    return found | dict(zip(names, node.args, strict=False)) | dict(node.kwargs)


def _value(node: Any) -> Tensor:
    found = node.meta.get("example_value") if isinstance(node, fx.Node) else None
    if not isinstance(found, Tensor):
        raise _Unsuited("the graph does not tell the shape of a tensor")
    return found


def _equal(a: Any, b: Any) -> bool:
    return bool(statically_known_true(a == b))


def _static(size: Any) -> int:
    if not isinstance(size, int):
        raise _Unsuited("it is cut into an unknown number of parts")
    return size


def _bytes(node: fx.Node) -> float:
    """Of the shard that a switch moves, by the sizes that the graph was traced with."""
    value = _value(node)
    sizes: Iterator[Any] = (n if isinstance(n, int) else n.node.hint or 1 for n in value.shape)
    return float(math.prod(sizes) * value.element_size())


__all__ = ["fuse"]
