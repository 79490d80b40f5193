"""A small ST-DiT in plain torch, and the sequence parallelisms that can run it.

Blocks alternate between attention along positions (spatial) and along frames (temporal), each
with an MLP and modulation by the timestep (Peebles and Xie, arXiv 2212.09748; a shared embedding
with a table per block as in PixArt, arXiv 2310.00426). Text cross-attention is left out: it mixes
no sharded axis, so every method would do it alike. Activations are ``x[B, T, S, C]``.

Every method starts with frames sharded and computes a loss on its shards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, mse_loss, scaled_dot_product_attention, silu

from perfkit import dsp
from perfkit.comm.group import GroupLike, process_group_of
from perfkit.dsp.peers.megatron import megatron_block, own_part
from perfkit.dsp.peers.ring import ring_attention
from perfkit.dsp.peers.ulysses import ulysses_attention
from perfkit.dsp.placement import Interval, shard_interval

FRAMES, POSITIONS = 1, 2  # dimensions of x
Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]
Around = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


@dataclass(frozen=True)
class Size:
    """Lengths of the whole problem; ``pairs`` of a spatial and a temporal block."""

    batch: int = 1
    frames: int = 16
    positions: int = 256
    width: int = 64
    heads: int = 4
    pairs: int = 2

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.batch, self.frames, self.positions, self.width

    @property
    def bytes(self) -> int:
        """M: one fp32 activation of the whole problem."""
        return 4 * self.batch * self.frames * self.positions * self.width


def attend_alone(q: Tensor, k: Tensor, v: Tensor, axis: int) -> Tensor:
    """Attention along a whole axis of ``[B, T, S, heads, dim]``."""
    return _along(q, k, v, axis, scaled_dot_product_attention)


def _along(
    q: Tensor, k: Tensor, v: Tensor, axis: int, attend: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """``attend`` on ``[batch, heads, axis, dim]``, everything else being the batch."""
    order = (0, 2, 3, 1, 4) if axis == FRAMES else (0, 1, 3, 2, 4)
    back = (0, 3, 1, 2, 4) if axis == FRAMES else (0, 1, 3, 2, 4)
    four = [x.permute(order).flatten(0, 1) for x in (q, k, v)]
    lead = q.permute(order).shape[:2]
    return attend(*four).unflatten(0, lead).permute(back)


def plainly(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return fn(x)


class Block(nn.Module):
    """Attention along ``axis`` and an MLP; holds some of the heads and of the hidden features.

    A full block holds all. Biases that are added once, after a sum over parts, are apart.
    """

    def __init__(self, width: int, head_dim: int, heads: int, hidden: int, axis: int) -> None:
        super().__init__()
        self.axis, self.head_dim = axis, head_dim
        self.qkv = nn.Linear(width, 3 * heads * head_dim)
        self.out = nn.Linear(heads * head_dim, width, bias=False)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width, bias=False)
        self.out_bias = nn.Parameter(torch.zeros(width))
        self.down_bias = nn.Parameter(torch.zeros(width))
        self.table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def forward(
        self, x: Tensor, condition: Tensor, attend: Attend, around: Around = plainly
    ) -> Tensor:
        mod = (condition + self.table)[:, :, None, None]
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = mod.unbind(1)
        h = layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
        x = x + gate * (around(lambda h: self.mix(h, attend), h) + self.out_bias)
        h = layer_norm(x, x.shape[-1:]) * (1 + scale_mlp) + shift_mlp
        return x + gate_mlp * (around(self.mlp, h) + self.down_bias)

    def mix(self, x: Tensor, attend: Attend) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, self.head_dim)).unbind(-3)
        return self.out(attend(q, k, v, self.axis).flatten(-2))

    def mlp(self, x: Tensor) -> Tensor:
        return self.down(gelu(self.up(x)))

    def part(self, heads: Interval, hidden: Interval) -> Block:
        """The block with those heads and hidden features only; its parts sum up to the block."""
        width = self.table.shape[1]
        count = heads[1] - heads[0]
        found = Block(width, self.head_dim, count, hidden[1] - hidden[0], self.axis)
        mine = {name: p.detach() for name, p in self.named_parameters()}
        found.load_state_dict(slice_part(mine, self.head_dim, heads, hidden))
        return found.to(self.table.dtype)


def slice_part(
    whole: dict[str, Tensor], head_dim: int, heads: Interval, hidden: Interval
) -> dict[str, Tensor]:
    """A full block's parameters, or their gradients, for some heads and hidden features."""
    rows = slice(heads[0] * head_dim, heads[1] * head_dim)
    features = slice(*hidden)
    cut = {
        "qkv.weight": lambda w: w.unflatten(0, (3, -1))[:, rows].flatten(0, 1),
        "qkv.bias": lambda b: b.unflatten(0, (3, -1))[:, rows].flatten(0, 1),
        "out.weight": lambda w: w[:, rows],
        "up.weight": lambda w: w[features],
        "up.bias": lambda b: b[features],
        "down.weight": lambda w: w[:, features],
    }
    return {name: cut[name](p).clone() if name in cut else p for name, p in whole.items()}


class Stdit(nn.Module):
    """A stack of (spatial, temporal) pairs of blocks."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        width, head_dim = size.width, size.width // size.heads
        self.embed = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(
            Block(width, head_dim, size.heads, 4 * width, axis)
            for _ in range(size.pairs)
            for axis in (POSITIONS, FRAMES)
        )

    def forward(self, x: Tensor, timestep: Tensor, method: Method) -> Tensor:
        """``x`` is this rank's shard of frames, ``timestep[B, C]`` its embedding, replicated."""
        condition = self.embed(silu(timestep)).unflatten(-1, (6, -1))
        return method.run(list(self.blocks), x, condition)


class Method:
    """One process; the base of the parallel methods, which override what they do otherwise."""

    name = "one rank"
    # Gradients of these parameters are whole on each rank: they belong to it alone.
    owned: frozenset[str] = frozenset()

    def __init__(self, size: Size, group: GroupLike = None) -> None:
        self.size, self.group = size, group

    def prepare(self, model: Stdit) -> Stdit:
        """The model as a rank holds it."""
        return model

    def run(self, blocks: list[nn.Module], x: Tensor, condition: Tensor) -> Tensor:
        for block in blocks:
            x = block(x, condition, self.attend, self.around)
        return x

    def attend(self, q: Tensor, k: Tensor, v: Tensor, axis: int) -> Tensor:
        return attend_alone(q, k, v, axis)

    def around(self, fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return fn(x)

    @property
    def leaves(self) -> int:
        """The dimension that is sharded at the end."""
        return FRAMES

    def shard(self, x: Tensor, dim: int) -> Tensor:
        """This rank's part of a whole tensor."""
        group = process_group_of(self.group)
        start, stop = shard_interval(x.shape[dim], group.size(), group.rank())
        return x.narrow(dim, start, stop - start).contiguous()


class One(Method):
    """All on this process; needs no group."""

    def shard(self, x: Tensor, dim: int) -> Tensor:
        return x


class Dsp(Method):
    """Frames sharded in spatial blocks, positions in temporal ones: 2 L - 1 switches."""

    name = "dsp"

    def __init__(self, size: Size, group: GroupLike = None, home: bool = False) -> None:
        super().__init__(size, group)
        self.home = home  # end as it started, which takes one more switch

    def run(self, blocks: list[nn.Module], x: Tensor, condition: Tensor) -> Tensor:
        held = FRAMES
        lengths = {FRAMES: self.size.frames, POSITIONS: self.size.positions}

        def hold(x: Tensor, held: int, wanted: int) -> Tensor:
            if held == wanted:
                return x
            return dsp.switch(
                x, self.group, from_dim=held, to_dim=wanted, size=lengths[held], stage="switch"
            )

        for block in blocks:
            wanted = FRAMES + POSITIONS - block.axis  # the other one
            x = block(hold(x, held, wanted), condition, self.attend)
            held = wanted
        return hold(x, held, FRAMES) if self.home else x

    @property
    def leaves(self) -> int:
        return FRAMES if self.home else POSITIONS


class DspPipelined(Method):
    """Each temporal block in chunks of positions, switched in and out while others compute."""

    name = "dsp, 4 chunks"
    chunks = 4

    def run(self, blocks: list[nn.Module], x: Tensor, condition: Tensor) -> Tensor:
        for block in blocks:
            if block.axis == POSITIONS:
                x = block(x, condition, self.attend)
                continue
            x = dsp.pipelined_switch(
                lambda y, block=block: block(y, condition, self.attend),
                x,
                self.group,
                from_dim=FRAMES,
                to_dim=POSITIONS,
                size=self.size.frames,
                chunks=self.chunks,
                stage="switch",
            )
        return x


class Ulysses(Method):
    """Frames stay sharded; temporal attention exchanges them for heads."""

    name = "ulysses"

    def attend(self, q: Tensor, k: Tensor, v: Tensor, axis: int) -> Tensor:
        if axis == POSITIONS:
            return attend_alone(q, k, v, axis)
        return _along(
            q, k, v, axis,
            lambda *qkv: ulysses_attention(
                *qkv, self.group, size=self.size.frames, stage="attention"
            ),
        )  # fmt: skip


class UlyssesBoth(Method):
    """Ulysses as published for one sequence of all positions: both attentions exchange heads."""

    name = "ulysses, both blocks"

    def attend(self, q: Tensor, k: Tensor, v: Tensor, axis: int) -> Tensor:
        size = self.size
        plain = [x.flatten(1, 2).transpose(1, 2) for x in (q, k, v)]  # [B, heads, T S, dim]

        def whole(*qkv: Tensor) -> Tensor:
            grid = [
                x.unflatten(2, (size.frames, size.positions)).permute(0, 2, 3, 1, 4) for x in qkv
            ]
            return attend_alone(*grid, axis).permute(0, 3, 1, 2, 4).flatten(2, 3)

        out = ulysses_attention(
            *plain,
            self.group,
            size=size.frames * size.positions,
            attend=whole,
            stage="attention",
        )
        return out.transpose(1, 2).unflatten(1, q.shape[1:3])


class Megatron(Method):
    """Frames sharded between, heads and hidden features inside attention and MLP."""

    name = "megatron"
    owned = frozenset(
        {"qkv.weight", "qkv.bias", "out.weight", "up.weight", "up.bias", "down.weight"}
    )

    def parts(self) -> tuple[Interval, Interval]:
        """The heads and hidden features of this rank."""
        return own_part(self.size.heads, self.group), own_part(4 * self.size.width, self.group)

    def prepare(self, model: Stdit) -> Stdit:
        heads, hidden = self.parts()
        model.blocks = nn.ModuleList(block.part(heads, hidden) for block in model.blocks)
        return model

    def around(self, fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return megatron_block(fn, x, self.group, dim=FRAMES, size=self.size.frames, stage="block")


class Ring(Method):
    """Frames stay sharded; in temporal attention keys and values go round."""

    name = "ring"

    def attend(self, q: Tensor, k: Tensor, v: Tensor, axis: int) -> Tensor:
        if axis == POSITIONS:
            return attend_alone(q, k, v, axis)
        return _along(
            q, k, v, axis,
            lambda *qkv: ring_attention(
                *qkv, self.group, size=self.size.frames, stage="attention"
            ),
        )  # fmt: skip


METHODS: dict[str, type[Method]] = {
    m.name: m for m in (Dsp, DspPipelined, Ulysses, UlyssesBoth, Megatron, Ring)
}


def shard_loss(y: Tensor, target: Tensor, method: Method) -> Tensor:
    """This rank's term of the mean squared error; the terms add up over the ranks."""
    mine = method.shard(target, method.leaves)
    return mse_loss(y, mine, reduction="sum") / target.numel()
