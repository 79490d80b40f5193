"""A stage between two switches, in chunks, so that the switches run while the stage computes.

A stage that mixes ``from_dim`` treats positions of ``to_dim`` apart, and a switch splits no
heads: so one slice of ``to_dim`` can be switched in, computed and switched out without the
others. While chunk i computes, chunk i+1 is on its way in and chunk i-1 on its way out; backward
does the same in reverse. More chunks hide more of the exchange and cost more messages and smaller
kernels, so one chunk can be the best: :func:`predict` prices a count, :func:`measure_chunks`
tries.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from perfkit.comm.group import GroupLike, process_group_of
from perfkit.cost.transfer import Link, transfer
from perfkit.dsp.placement import shard_interval
from perfkit.dsp.primitives import Pending, switch
from perfkit.errors import SwitchError


def pipelined_switch(
    fn: Callable[[Tensor], Tensor],
    x: Tensor,
    group: GroupLike = None,
    *,
    from_dim: int,
    to_dim: int,
    size: int | None = None,
    chunks: int = 1,
    stage: str = "",
) -> Tensor:
    """Switch to ``to_dim``, apply ``fn``, switch back: the same values for any number of chunks.

    Args:
        fn: mixes ``from_dim``, which it sees whole, and treats positions of ``to_dim`` (of which
            it sees some, or none) and whatever is before them alike; keeps both lengths.
        x: this rank's shard: ``from_dim`` is sharded, ``to_dim`` whole.
        size: global length of ``from_dim``; may be left out only where it divides evenly.
        chunks: slices of ``to_dim``, each balanced over the ranks by itself; at most its length
            is used.

    Returns:
        the result, sharded on ``from_dim`` like ``x``.

    Raises:
        SwitchError: fewer than one chunk, or ``fn`` changes the length of one of the dimensions.
        CollectiveError: a rank died or disagreed.
    """
    if chunks < 1:
        raise SwitchError(f"chunks={chunks}: at least one")
    if not (-x.ndim <= from_dim < x.ndim and -x.ndim <= to_dim < x.ndim):
        raise SwitchError(f"dimensions {from_dim}, {to_dim} of a tensor of shape {tuple(x.shape)}")
    source, target = from_dim % x.ndim, to_dim % x.ndim
    ranks = process_group_of(group).size()
    whole = x.shape[source] * ranks if size is None else size
    length = x.shape[target]
    if ranks == 1:
        return _apply(fn, x, source, target)
    chunks = max(1, min(chunks, length))

    def start_in(i: int) -> Pending:
        low, high = shard_interval(length, chunks, i)
        part = x.narrow(target, low, high - low)
        return switch(
            part, group, from_dim=source, to_dim=target, size=whole, stage=stage, async_op=True
        )

    def start_out(y: Tensor, i: int) -> Pending:
        low, high = shard_interval(length, chunks, i)
        return switch(
            y, group, from_dim=target, to_dim=source, size=high - low, stage=stage, async_op=True
        )

    results: list[Tensor] = []
    arriving, leaving = start_in(0), None
    for i in range(chunks):
        following = start_in(i + 1) if i + 1 < chunks else None
        y = _apply(fn, arriving.wait(), source, target)
        pending = start_out(y, i)
        # After the next has started: backward then starts this one before it waits for that one.
        if leaving is not None:
            results.append(leaving.wait())
        leaving = pending
        if following is not None:
            arriving = following
    assert leaving is not None
    results.append(leaving.wait())
    return results[0] if chunks == 1 else torch.cat(results, target)


def _apply(fn: Callable[[Tensor], Tensor], y: Tensor, source: int, target: int) -> Tensor:
    result = fn(y)
    if result.ndim <= max(source, target) or any(
        result.shape[d] != y.shape[d] for d in (source, target)
    ):
        raise SwitchError(
            f"fn turned {tuple(y.shape)} into {tuple(result.shape)}; dimensions {source} and "
            f"{target} must keep their lengths"
        )
    return result


def predict(chunks: int, sent: float, ranks: int, seconds: float, link: Link) -> float:
    """Seconds of :func:`pipelined_switch`, forward, by the alpha-beta model.

    ``sent`` is the bytes that a rank sends in one switch of the whole tensor and ``seconds`` the
    stage's arithmetic. In the steady state a chunk's arithmetic runs beside one switch in and one
    out, which share the link.
    """
    one = transfer(sent / chunks, ranks - 1, link)
    part = seconds / chunks
    return one + (chunks - 1) * max(part, 2 * one) + part + one


def choose_chunks(
    sent: float, ranks: int, seconds: float, link: Link, candidates: Sequence[int] = (1, 2, 4, 8)
) -> int:
    """The candidate of the least predicted time; of equals the fewest chunks.

    Raises:
        SwitchError: no candidate, or one below 1.
    """
    _check_candidates(candidates)
    return min(candidates, key=lambda k: (predict(k, sent, ranks, seconds, link), k))


def measure_chunks(
    step: Callable[[int], object],
    group: GroupLike = None,
    candidates: Sequence[int] = (1, 2, 4, 8),
    repeats: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[int, Mapping[int, float]]:
    """The fastest candidate on the slowest rank, the same on every rank, and all medians.

    ``step(chunks)`` runs once to warm up and ``repeats`` times, candidates interleaved; on a GPU
    it must wait for its kernels itself.

    Raises:
        SwitchError: no candidate, or one below 1.
    """
    _check_candidates(candidates)
    times: dict[int, list[float]] = {k: [] for k in candidates}
    for k in times:
        step(k)
    for _ in range(repeats):
        for k, spent in times.items():
            begin = clock()
            step(k)
            spent.append(clock() - begin)
    medians = [sorted(spent)[len(spent) // 2] for spent in times.values()]
    worst = torch.tensor(medians, dtype=torch.float64)
    process_group = process_group_of(group)
    if dist.get_backend(process_group) == "nccl":
        worst = worst.cuda()
    dist.all_reduce(worst, dist.ReduceOp.MAX, group=process_group)
    found = dict(zip(times, worst.tolist(), strict=True))
    return min(found, key=lambda k: (found[k], k)), found


def _check_candidates(candidates: Sequence[int]) -> None:
    if not candidates or any(k < 1 for k in candidates):
        raise SwitchError(f"candidates {list(candidates)}: at least one, each of 1 or more")
