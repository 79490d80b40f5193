"""What the operators run: relayout, collective, relayout, on concrete tensors of one rank.

``launch_*`` checks arguments and starts the collective, ``land_*`` waits and lays out the result;
the synchronous operators do both. No gradients here (:mod:`perfkit.dsp.operators`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from perfkit.comm import collectives
from perfkit.comm.check import Call
from perfkit.comm.group import Group, resolve
from perfkit.comm.layout import pack, unpack
from perfkit.dsp.placement import Placement, shard_interval, shard_length, shard_lengths
from perfkit.dsp.transfers import Transfers
from perfkit.errors import SwitchError

# Sums that the backend forms itself. Shorter types are sent as they are and added here, so that
# 16-bit floats accumulate in 32 bits; the bytes on the wire are the same.
_SUMMED_BY_BACKEND = (torch.float32, torch.float64)
_ACCUMULATE_IN = {torch.bfloat16: torch.float32, torch.float16: torch.float32}


def enter(group: Group, call: Call) -> None:
    """Agree with the other ranks in debug mode; then refuse this rank's own wrong arguments."""
    if group.checker is not None:
        group.checker.agree(call)
    if call.problem:
        raise SwitchError(f"rank {group.rank} of {group.size}: {call}: {call.problem}")


def _call(
    primitive: str, stage: str, x: Tensor, shape: Sequence[int], *dims: int, problem: str = ""
) -> Call:
    return Call(primitive, stage, tuple(shape), str(x.dtype).removeprefix("torch."), dims, problem)


def _shard_problem(x: Tensor, dim: int, size: int, group: Group) -> str:
    expected = shard_length(size, group.size, group.rank)
    if x.shape[dim] == expected:
        return ""
    return (
        f"this rank holds {x.shape[dim]} of the {size} indices of dimension {dim}, but a balanced "
        f"shard has {expected}; pass size=, the global length"
    )


# -- switch ---------------------------------------------------------------------------------


def launch_switch(
    x: Tensor, name: str, from_dim: int, to_dim: int, size: int, fresh: bool, stage: str
) -> Tensor:
    """Start the exchange; the flat buffer returned is filled when it has landed."""
    group = resolve(name)
    shape = list(x.shape)
    shape[from_dim] = size
    problem = _shard_problem(x, from_dim, size, group)
    call = _call("switch", stage, x, shape, from_dim, to_dim, problem=problem)
    enter(group, call)
    known = group.keep(Transfers, lambda: Transfers(group.rank))
    transfer = known.get(
        Placement.sharded(tuple(shape), group.size, from_dim),
        Placement.sharded(tuple(shape), group.size, to_dim),
    )
    flat = pack(x, to_dim, shard_lengths(shape[to_dim], group.size), fresh)
    received = flat.new_empty(sum(transfer.receive_splits))
    collectives.all_to_all(
        received, flat, transfer.receive_splits, transfer.send_splits, group, call
    )
    return received


def land_switch(
    received: Tensor,
    name: str,
    dims: tuple[int, int],
    shape: Sequence[int],
    to_size: int,
    fresh: bool,
    stage: str,
) -> Tensor:
    """Wait for a switch of ``dims`` (from, to) and lay out the result, of local ``shape``."""
    group = resolve(name)
    whole = list(shape)
    whole[dims[1]] = to_size
    collectives.finish(received, group, _call("switch", stage, received, whole, *dims))
    return unpack(received, shape, dims[0], shard_lengths(shape[dims[0]], group.size), fresh)


def switched_shape(x: Tensor, group: Group, from_dim: int, to_dim: int, size: int) -> list[int]:
    """The local shape after a switch; works on symbolic sizes too."""
    shape = list(x.shape)
    shape[from_dim] = size
    shape[to_dim] = shard_length(x.shape[to_dim], group.size, group.rank)
    return shape


# -- split ----------------------------------------------------------------------------------


def run_split(x: Tensor, name: str, dim: int) -> Tensor:
    """This rank's shard of a replicated tensor, as a contiguous copy."""
    group = resolve(name)
    start, stop = shard_interval(x.shape[dim], group.size, group.rank)
    return x.narrow(dim, start, stop - start).clone(memory_format=torch.contiguous_format)


def split_shape(x: Tensor, group: Group, dim: int) -> list[int]:
    """The local shape after a split; works on symbolic sizes too."""
    shape = list(x.shape)
    shape[dim] = shard_length(x.shape[dim], group.size, group.rank)
    return shape


# -- gather ---------------------------------------------------------------------------------


def launch_gather(x: Tensor, name: str, dim: int, size: int, fresh: bool, stage: str) -> Tensor:
    """Start gathering the shards; the flat buffer returned is filled when it has landed."""
    group = resolve(name)
    shape = list(x.shape)
    shape[dim] = size
    problem = _shard_problem(x, dim, size, group)
    call = _call("gather", stage, x, shape, dim, problem=problem)
    enter(group, call)
    row = _row(shape, dim)
    splits = [n * row for n in shard_lengths(size, group.size)]
    flat = pack(x, 0, [x.shape[0]], fresh)
    received = flat.new_empty(sum(splits))
    collectives.all_gather(received, flat, splits, group, call)
    return received


def land_gather(
    received: Tensor, name: str, dim: int, shape: Sequence[int], fresh: bool, stage: str
) -> Tensor:
    """Wait for a gather and lay out the whole tensor, of ``shape``."""
    group = resolve(name)
    collectives.finish(received, group, _call("gather", stage, received, shape, dim))
    return unpack(received, shape, dim, shard_lengths(shape[dim], group.size), fresh)


# -- reduce_scatter -------------------------------------------------------------------------


def launch_reduce_scatter(x: Tensor, name: str, dim: int, fresh: bool, stage: str) -> Tensor:
    """Start summing over ranks; returns rows that :func:`land_reduce_scatter` adds up.

    One row for each rank, or a single one where the backend forms the sum.
    """
    group = resolve(name)
    problem = "a sum of bool has no meaning; convert first" if x.dtype == torch.bool else ""
    call = _call("reduce_scatter", stage, x, x.shape, dim, problem=problem)
    enter(group, call)
    lengths = shard_lengths(x.shape[dim], group.size)
    row = _row(x.shape, dim)
    flat = pack(x, dim, lengths, fresh)
    mine = lengths[group.rank] * row
    received = flat.new_empty((reduce_rows(x, group, dim), mine))
    if len(received) == 1:
        collectives.reduce_scatter(received.view(-1), flat, group, call)
    else:
        send = [n * row for n in lengths]
        collectives.all_to_all(received.view(-1), flat, [mine] * group.size, send, group, call)
    return received


def land_reduce_scatter(
    received: Tensor,
    name: str,
    dim: int,
    shape: Sequence[int],
    whole: Sequence[int],
    fresh: bool,
    stage: str,
) -> Tensor:
    """Wait for a reduce_scatter, add up the rows and lay out the shard, of local ``shape``."""
    group = resolve(name)
    collectives.finish(received, group, _call("reduce_scatter", stage, received, whole, dim))
    if len(received) == 1:
        return received.clone().view(*shape) if fresh else received.view(*shape)
    wide = _ACCUMULATE_IN.get(received.dtype, received.dtype)
    return received.sum(0, dtype=wide).to(received.dtype).view(*shape)


def reduce_rows(x: Tensor, group: Group, dim: int) -> int:
    """Rows that reach each rank in a reduce_scatter of ``x``: one, or one for each rank."""
    even = x.shape[dim] % group.size == 0
    return 1 if even and x.dtype in _SUMMED_BY_BACKEND else group.size


def _row(shape: Sequence[int], dim: int) -> int:
    count = 1
    for d, n in enumerate(shape):
        count *= 1 if d == dim else n
    return count
