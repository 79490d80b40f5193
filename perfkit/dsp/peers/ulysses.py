"""DeepSpeed-Ulysses: attention along a sharded axis by exchanging it for heads.

Jacobs et al., "DeepSpeed Ulysses", arXiv 2309.14509, section 3. Queries, keys and values go from
sharded positions to sharded heads, attention runs on whole sequences of some heads, and the output
goes back: four switches, 4 M (N - 1) / N^2 bytes sent per rank forward. The number of heads need
not divide by the ranks; a rank may hold none.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from perfkit.comm.group import GroupLike
from perfkit.dsp.primitives import switch
from perfkit.errors import SwitchError


def ulysses_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    group: GroupLike = None,
    *,
    size: int,
    attend: Callable[[Tensor, Tensor, Tensor], Tensor] = scaled_dot_product_attention,
    stage: str = "",
) -> Tensor:
    """Attention over a sequence of global length ``size`` that is sharded.

    Args:
        q, k, v: ``[..., heads, positions of this rank, head dim]``, one number of heads.
        attend: takes them with whole sequences and some of the heads, and gives the output.

    Returns:
        ``[..., heads, positions of this rank, head dim of v]``.

    Raises:
        SwitchError: numbers of heads differ (repeat those of k and v first), or a shard that is
            not balanced.
        CollectiveError: a rank died or disagreed.
    """
    if min(q.ndim, k.ndim, v.ndim) < 3:
        raise SwitchError("q, k and v need dimensions [heads, positions, head dim]")
    heads = q.shape[-3]
    if k.shape[-3] != heads or v.shape[-3] != heads:
        raise SwitchError(
            f"{heads} heads of queries, {k.shape[-3]} of keys and {v.shape[-3]} of values; "
            "repeat the heads of keys and values first"
        )
    # All three at once: the second and third travel while the first is laid out.
    pending = [
        switch(x, group, from_dim=-2, to_dim=-3, size=size, stage=stage, async_op=True)
        for x in (q, k, v)
    ]
    output = attend(*(p.wait() for p in pending))
    return switch(output, group, from_dim=-3, to_dim=-2, size=heads, stage=stage)
