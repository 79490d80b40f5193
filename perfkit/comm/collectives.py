"""Collectives on flat buffers: launched without waiting, counted, and with errors that name.

Each function hands buffers to torch.distributed and registers the pending work with the buffer
that it fills, as torch's own functional collectives do; :func:`finish` waits for it. Where
nothing is computed on the way, elements travel as bytes, so every element type works on every
backend. Sizes come from the caller on both sides: nothing is exchanged to learn them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import _register_work

from perfkit.comm.check import Call
from perfkit.comm.group import Group
from perfkit.errors import CollectiveError

# Renamed in torch 2.13, where the old names warn.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def all_to_all(
    received: Tensor,
    flat: Tensor,
    receive_splits: Sequence[int],
    send_splits: Sequence[int],
    group: Group,
    call: Call,
) -> None:
    """Send the parts of ``flat`` to the ranks, in order, and fill ``received`` with theirs.

    Both are one-dimensional and contiguous; splits are in elements.
    """
    size = flat.element_size()
    _count(
        group,
        call,
        (sum(send_splits) - send_splits[group.rank]) * size,
        (sum(receive_splits) - receive_splits[group.rank]) * size,
    )
    source, target = flat.view(torch.uint8), received.view(torch.uint8)
    if group.fake and not flat.numel():
        received.zero_()  # torch's fake backend repeats what a rank sends, and refuses nothing
        return
    with _Named(group, call):
        work = dist.all_to_all_single(
            target,
            source,
            [n * size for n in receive_splits],
            [n * size for n in send_splits],
            group=group.process_group,
            async_op=True,
        )
        _pending(received, [work], group)


def all_gather(
    received: Tensor, flat: Tensor, splits: Sequence[int], group: Group, call: Call
) -> None:
    """Fill ``received`` with every rank's ``flat``, in order; ``splits`` are their lengths."""
    size = flat.element_size()
    others = sum(splits) - splits[group.rank]
    _count(group, call, splits[group.rank] * (group.size - 1) * size, others * size)
    source, target = flat.view(torch.uint8), received.view(torch.uint8)
    with _Named(group, call):
        if len(set(splits)) == 1:
            works = [_all_gather(target, source, group=group.process_group, async_op=True)]
        else:
            parts = target.split([n * size for n in splits])
            works = _gather_uneven(parts, source, group)
        _pending(received, works, group)


def _gather_uneven(parts: Sequence[Tensor], source: Tensor, group: Group) -> list[dist.Work]:
    """Point to point: backends gather equal lengths only, and nothing is to be padded."""
    process_group = group.process_group
    transfers = []
    for step in range(1, group.size):  # everyone starts with another peer
        to, origin = (group.rank + step) % group.size, (group.rank - step) % group.size
        if source.numel():
            transfers.append(dist.P2POp(dist.isend, source, group=process_group, group_peer=to))
        if parts[origin].numel():
            transfers.append(
                dist.P2POp(dist.irecv, parts[origin], group=process_group, group_peer=origin)
            )
    works = dist.batch_isend_irecv(transfers) if transfers else []
    parts[group.rank].copy_(source)
    return works


def shift(received: Tensor, flat: Tensor, group: Group, call: Call) -> None:
    """Send ``flat`` to the next rank of a ring and fill ``received`` from the rank before.

    Lengths may differ; both sides of a message must know it, and an empty one is not sent.
    """
    _count(
        group, call, flat.numel() * flat.element_size(), received.numel() * received.element_size()
    )
    ends = (dist.isend, flat, group.rank + 1), (dist.irecv, received, group.rank - 1)
    transfers = [
        dist.P2POp(
            operation,
            buffer.view(torch.uint8),
            group=group.process_group,
            group_peer=peer % group.size,
        )
        for operation, buffer, peer in ends
        if buffer.numel()
    ]
    with _Named(group, call):
        works = dist.batch_isend_irecv(transfers) if transfers else []
        _pending(received, works, group)


def reduce_scatter(received: Tensor, flat: Tensor, group: Group, call: Call) -> None:
    """Fill ``received`` with the sum over ranks of this rank's part of ``flat``, in equal parts."""
    moved = received.numel() * received.element_size() * (group.size - 1)
    _count(group, call, moved, moved)
    with _Named(group, call):
        work = _reduce_scatter(received, flat, group=group.process_group, async_op=True)
        _pending(received, [work], group)


def finish(received: Tensor, group: Group, call: Call) -> None:
    """Wait until ``received`` is filled: on a GPU its stream does, on a CPU this thread does.

    Raises:
        CollectiveError: a rank died, or the group's timeout passed.
    """
    with _Named(group, call):
        torch.ops._c10d_functional.wait_tensor(received)


def _pending(received: Tensor, works: Sequence[dist.Work | None], group: Group) -> None:
    for work in works:
        if work is None:
            continue
        if group.checker is not None:
            # Debug mode waits here, where the timeout is perfkit's and not the group's.
            work.wait(group.timeout)
        else:
            _register_work(received, work)


def _count(group: Group, call: Call, sent: int, received: int) -> None:
    group.counters.add(call.stage, call.primitive, sent, received)


class _Named:
    """Turns an error of the backend into one that names rank, stage and shapes."""

    def __init__(self, group: Group, call: Call) -> None:
        self.group, self.call = group, call

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if isinstance(error, RuntimeError) and not isinstance(error, CollectiveError):
            reason = (str(error).splitlines() or [""])[0]
            raise CollectiveError(
                f"rank {self.group.rank} of {self.group.size} (group {self.group.name!r}): "
                f"{self.call} failed; another rank died, or did not come in time: {reason}"
            ) from error
