"""Linear layers of which each rank computes a part: by columns, then by rows (Megatron-LM).

Shoeybi et al., arXiv 1909.08053, section 3: the first layer of an MLP, or the projections of an
attention, give a part of their outputs (some hidden features, some heads); the last one takes that
part and gives one term of a sum. With sequence parallelism (arXiv 2205.05198) the input is
gathered before and the sum scattered after.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor
from torch.nn.functional import linear

from perfkit.dsp.primitives import gather, reduce_scatter
from perfkit.dsp.sharded import Sharded, part_of, whole
from perfkit.frontends.fx import Axis, fused, unfolded
from perfkit.frontends.fx_call import Call, Reading

if TYPE_CHECKING:
    from perfkit.dsp.dispatch import Run


class Column(NamedTuple):
    """An axis that the outputs of a linear layer have: heads, or hidden features.

    Output ``(o * length + index) * inner + i`` belongs to ``index``.
    """

    axis: str
    outer: int
    length: int
    inner: int

    def place(self, dim: int) -> Axis:
        return Axis(dim, self.outer, self.length, self.inner)


def column_linear(call: Call, reading: Reading, column: Column, run: Run) -> Sharded:
    """A linear layer on the whole sequence, for this rank's part of its outputs."""
    x, weight, *bias = call.tensors
    rows = column.place(0)
    local = linear(whole(x), part_of(weight, rows, run), *[part_of(b, rows, run) for b in bias])
    shape = (*x.shape[:-1], weight.shape[0])
    places = {**reading.places, column.axis: column.place(len(shape) - 1)}
    return run.wrap(local, shape, places, column.axis)


def row_linear(call: Call, reading: Reading, to: str, run: Run) -> Sharded:
    """A linear layer on this rank's part of its inputs; the terms' sum, sharded on axis ``to``."""
    x, weight, *bias = call.tensors
    held = x.places[x.held]
    term = linear(x.local, part_of(weight, held.moved(1), run))
    shape, axis = (*x.shape[:-1], weight.shape[0]), reading.places[to]
    found = run.timed(
        f"{x.held} -> {to}", lambda stage: _scattered(term, shape, axis, run, stage)
    )
    for b in bias:
        found = found + b
    return run.wrap(found, shape, reading.places, to)


def _scattered(
    term: Tensor, shape: tuple[int, ...], axis: Axis, run: Run, stage: str
) -> Tensor:
    """This rank's part of the sum of every rank's ``term``."""
    size = math.prod(shape[axis.dim : axis.dim + axis.span])
    if axis.extent == size:
        body = term.reshape(unfolded(shape, axis, axis.length))
        body = reduce_scatter(body, run.group, dim=axis.dim + 1, stage=stage)
        return body.reshape(fused(shape, axis, body.shape[axis.dim + 1]))
    # Elements beside the axis (a class token) are wanted by every rank.
    last = len(shape) - 1
    part = reduce_scatter(term, run.group, dim=last, stage=stage)
    total = gather(part, run.group, dim=last, size=shape[last], grad="partial", stage=stage)
    return part_of(total, axis, run)
