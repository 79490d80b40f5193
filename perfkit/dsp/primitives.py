"""split, switch, gather, reduce_scatter: the primitives of dynamic sequence parallelism.

Terms (arXiv 2403.10266, section 3): a tensor is *sharded* on a dimension when each rank of the
group holds a balanced part of it (:func:`perfkit.dsp.placement.shard_length`; a part may be
empty), *replicated* when each holds all of it, *partial* when the value is the sum over ranks.

Gradients. The loss is the sum of what the ranks call backward on. The gradient of a sharded
tensor is sharded likewise, with no factor. For a replicated tensor there are two conventions, and
``grad`` says which one holds for the replicated side of ``split`` and ``gather``:

``"replicated"`` (default)
    every rank computes the same from it, one loss in all (each rank holds that loss); its
    gradient is whole and equal on every rank. Gather's backward takes this rank's slice (0
    bytes), split's backward gathers.
``"partial"``
    ranks compute different things from it (a loss of their own each, added up); its gradient is
    the sum of what the ranks hold. Gather's backward is a reduce_scatter, split's backward fills
    the rest with zeros (0 bytes).

Mixing them up gives gradients that are wrong by the number of ranks, or that miss terms. Neither
divides by the number of ranks; nothing is averaged.

All take tensors of any element type and strides and return contiguous ones. ``group`` is a
process group, a mesh of one axis, a group's name, or None for all ranks. ``stage`` labels the
bytes in :func:`perfkit.comm.group.counters` and the errors. In a group of one rank a tensor is
returned as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, overload

import torch
from torch import Tensor

from perfkit.comm.group import GroupLike, process_group_of
from perfkit.dsp import operators
from perfkit.dsp.placement import shard_interval, shard_length
from perfkit.errors import SwitchError

Gradient = Literal["replicated", "partial"]
_ops = getattr(torch.ops, operators.NAMESPACE)


class Pending:
    """A primitive under way. :meth:`wait` gives its result, again and again the same one.

    The input must not be written before. Every rank must wait for what it started.
    """

    def __init__(self, finish: Callable[[], Tensor]) -> None:
        self._finish: Callable[[], Tensor] | None = finish
        self._result: Tensor | None = None

    def wait(self) -> Tensor:
        """The result. A GPU's stream waits for it; on a CPU this thread does.

        Raises:
            CollectiveError: a rank died, or the group's timeout passed.
        """
        if self._finish is not None:
            self._result = self._finish()
            self._finish = None
        if self._result is None:
            raise SwitchError("this exchange failed before; its result does not exist")
        return self._result


def _dim(x: Tensor, dim: int, what: str) -> int:
    if not -x.ndim <= dim < x.ndim:
        raise SwitchError(f"{what}={dim} does not exist in a tensor of shape {tuple(x.shape)}")
    return dim % x.ndim


def _is_partial(grad: str) -> bool:
    if grad not in ("replicated", "partial"):
        raise SwitchError(f"grad={grad!r}: expected 'replicated' or 'partial'")
    return grad == "partial"


@overload
def switch(
    x: Tensor,
    group: GroupLike = ...,
    *,
    from_dim: int,
    to_dim: int,
    size: int | None = ...,
    stage: str = ...,
    async_op: Literal[False] = ...,
) -> Tensor: ...


@overload
def switch(
    x: Tensor,
    group: GroupLike = ...,
    *,
    from_dim: int,
    to_dim: int,
    size: int | None = ...,
    stage: str = ...,
    async_op: Literal[True],
) -> Pending: ...


def switch(
    x: Tensor,
    group: GroupLike = None,
    *,
    from_dim: int,
    to_dim: int,
    size: int | None = None,
    stage: str = "",
    async_op: bool = False,
) -> Tensor | Pending:
    """Move the sharding from one dimension to another: one all-to-all.

    Each rank sends ``M / N * (N - 1) / N`` bytes of a tensor of M bytes over N ranks, forward and
    again backward; the gradient is the reversed switch, with no factor. ``async_op`` overlaps in
    both directions.

    Args:
        x: this rank's shard: dimension ``from_dim`` is sharded, ``to_dim`` whole.
        size: global length of ``from_dim``; may be left out only where it divides evenly.

    Returns:
        the same tensor with ``from_dim`` whole and ``to_dim`` sharded, or the pending exchange.

    Raises:
        SwitchError: dimensions that do not exist or are equal, or a shard that is not balanced.
        CollectiveError: a rank died or disagreed.
    """
    source, target = _dim(x, from_dim, "from_dim"), _dim(x, to_dim, "to_dim")
    if source == target:
        raise SwitchError(f"from_dim and to_dim are both {source}; nothing to switch")
    member = process_group_of(group)
    ranks, name = member.size(), member.group_name
    whole = x.shape[source] * ranks if size is None else size
    if ranks == 1:
        _alone(x, source, whole)
        return Pending(lambda: x) if async_op else x
    if not async_op:
        return _ops.switch(x, name, source, target, whole, stage)
    fresh = torch.compiler.is_compiling()
    shape = list(x.shape)
    shape[source] = whole
    shape[target] = shard_length(x.shape[target], ranks, member.rank())
    buffer, token = _ops.switch_start(x, name, source, target, whole, fresh, stage)
    to_size = x.shape[target]
    return Pending(
        lambda: _ops.switch_finish(
            buffer, token, name, source, target, shape, to_size, fresh, stage
        )
    )


def split(
    x: Tensor,
    group: GroupLike = None,
    *,
    dim: int,
    grad: Gradient = "replicated",
    stage: str = "",
) -> Tensor:
    """This rank's shard of a replicated tensor. Sends nothing forward.

    Backward gathers the gradient (``M * (N - 1) / N`` bytes received) with ``grad="replicated"``,
    and sends nothing with ``"partial"``, where the result is a view of ``x``.

    Raises:
        SwitchError: a dimension that does not exist.
    """
    at = _dim(x, dim, "dim")
    member = process_group_of(group)
    if member.size() == 1:
        _is_partial(grad)
        return x
    if not _is_partial(grad):
        return _ops.split(x, member.group_name, at, stage)
    start, stop = shard_interval(x.shape[at], member.size(), member.rank())
    return x.narrow(at, start, stop - start)


@overload
def gather(
    x: Tensor,
    group: GroupLike = ...,
    *,
    dim: int,
    size: int | None = ...,
    grad: Gradient = ...,
    stage: str = ...,
    async_op: Literal[False] = ...,
) -> Tensor: ...


@overload
def gather(
    x: Tensor,
    group: GroupLike = ...,
    *,
    dim: int,
    size: int | None = ...,
    grad: Gradient = ...,
    stage: str = ...,
    async_op: Literal[True],
) -> Pending: ...


def gather(
    x: Tensor,
    group: GroupLike = None,
    *,
    dim: int,
    size: int | None = None,
    grad: Gradient = "replicated",
    stage: str = "",
    async_op: bool = False,
) -> Tensor | Pending:
    """The whole tensor on every rank, from its shards: ``M * (N - 1) / N`` bytes received.

    Backward sends nothing with ``grad="replicated"`` and is a :func:`reduce_scatter` with
    ``"partial"``. ``async_op`` overlaps forward only.

    Args:
        size: global length of ``dim``; may be left out only where it divides evenly.

    Raises:
        SwitchError: a dimension that does not exist, or a shard that is not balanced.
        CollectiveError: a rank died or disagreed.
    """
    at = _dim(x, dim, "dim")
    partial = _is_partial(grad)
    member = process_group_of(group)
    ranks, name = member.size(), member.group_name
    whole = x.shape[at] * ranks if size is None else size
    if ranks == 1:
        _alone(x, at, whole)
        return Pending(lambda: x) if async_op else x
    if not async_op:
        return _ops.gather(x, name, at, whole, partial, stage)
    fresh = torch.compiler.is_compiling()
    shape = list(x.shape)
    shape[at] = whole
    buffer = _ops.gather_start(x.detach(), name, at, whole, fresh, stage)
    return Pending(lambda: _ops.gather_finish(buffer, x, name, at, shape, partial, fresh, stage))


@overload
def reduce_scatter(
    x: Tensor,
    group: GroupLike = ...,
    *,
    dim: int,
    stage: str = ...,
    async_op: Literal[False] = ...,
) -> Tensor: ...


@overload
def reduce_scatter(
    x: Tensor,
    group: GroupLike = ...,
    *,
    dim: int,
    stage: str = ...,
    async_op: Literal[True],
) -> Pending: ...


def reduce_scatter(
    x: Tensor,
    group: GroupLike = None,
    *,
    dim: int,
    stage: str = "",
    async_op: bool = False,
) -> Tensor | Pending:
    """This rank's shard of the sum over ranks: the adjoint of a gather of partial gradients.

    Sends ``M * (N - 1) / N`` bytes; backward gathers, with no factor. fp32 and fp64 that divide
    evenly are added by the backend, in its order; everything else is added here, in the order of
    ranks, 16-bit floats in 32 bits, with room for N shards. ``async_op`` overlaps forward only.

    Raises:
        SwitchError: a dimension that does not exist, or bool.
        CollectiveError: a rank died or disagreed.
    """
    at = _dim(x, dim, "dim")
    member = process_group_of(group)
    ranks, name = member.size(), member.group_name
    if ranks == 1:
        return Pending(lambda: x) if async_op else x
    if not async_op:
        return _ops.reduce_scatter(x, name, at, stage)
    fresh = torch.compiler.is_compiling()
    shape = list(x.shape)
    shape[at] = shard_length(x.shape[at], ranks, member.rank())
    buffer = _ops.reduce_scatter_start(x.detach(), name, at, fresh, stage)
    return Pending(lambda: _ops.reduce_scatter_finish(buffer, x, name, at, shape, fresh, stage))


def _alone(x: Tensor, dim: int, size: int) -> None:
    if x.shape[dim] != size:
        raise SwitchError(
            f"a group of one rank holds all of dimension {dim}; shape {tuple(x.shape)}, size={size}"
        )
