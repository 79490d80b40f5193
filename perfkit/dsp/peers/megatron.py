"""Megatron-LM's sequence parallelism: gather positions, compute a part of the width, sum back.

Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", arXiv
2205.05198, section 4.2.2. Attention is divided by heads and the MLP by hidden features; each of
them gathers the sequence and reduce-scatters its result, so a block sends 4 M (N - 1) / N bytes per
rank forward, whatever the number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from perfkit.comm.group import GroupLike, process_group_of
from perfkit.dsp.placement import Interval, shard_interval
from perfkit.dsp.primitives import gather, reduce_scatter


def own_part(count: int, group: GroupLike = None) -> Interval:
    """The heads, or hidden features, of ``count`` that this rank computes; balanced, maybe none."""
    process_group = process_group_of(group)
    return shard_interval(count, process_group.size(), process_group.rank())


def megatron_block(
    fn: Callable[[Tensor], Tensor],
    x: Tensor,
    group: GroupLike = None,
    *,
    dim: int,
    size: int | None = None,
    stage: str = "",
) -> Tensor:
    """``fn`` over the whole of ``dim``, each rank computing one term of a sum.

    Args:
        fn: takes the whole tensor and returns this rank's term: the result of the weights that
            belong to :func:`own_part`. A bias that is added once belongs to the term of one rank.
        x: this rank's shard of ``dim``, of global length ``size``.

    Returns:
        this rank's shard of the sum over ranks. Gradients of the weights are whole for the part
        that a rank used; summed over the group they are those of one process.

    Raises:
        SwitchError: a shard that is not balanced.
        CollectiveError: a rank died or disagreed.
    """
    whole = gather(x, group, dim=dim, size=size, grad="partial", stage=stage)
    return reduce_scatter(fn(whole), group, dim=dim, stage=stage)
