"""Gradients at the edges of a parallel region: inputs, outputs and parameters.

Inside, a value that every rank holds has a partial gradient: the true one is the sum over ranks
(:mod:`perfkit.dsp.sharded`). At the edges it is whole, one loss that every rank computes:

- an output passes back its gradient over the number of ranks where every rank used all of it;
- an input that needs a gradient gets the sum;
- parameters get the sum after the backward pass, in buckets, counted as ``parameters``.

With ``gradients="sum"`` each rank ends with the gradients of one process. With ``"mean"`` nothing
is summed here and gradients come out ``ranks`` times larger, so that DDP or FSDP over the flattened
(dp, sp) mesh, which averages over all its ranks, gives the average over dp.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from perfkit.comm.group import resolve
from perfkit.dsp.operators import NAMESPACE, define

_ops = getattr(torch.ops, NAMESPACE)
Gradients = Literal["sum", "mean"]
BUCKET = 25 << 20
"""Bytes of a bucket of gradients, as in DDP."""


class _Scaled(torch.autograd.Function):
    """The same value; its gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


class _Summed(torch.autograd.Function):
    """The same value; its gradient is summed over the ranks of a group."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: str, factor: float) -> Tensor:
        ctx.group, ctx.factor = group, factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _ops.all_reduce(grad * ctx.factor, ctx.group, "inputs (backward)"), None, None


def scaled(x: Tensor, factor: float) -> Tensor:
    """``x``, its gradient multiplied by ``factor``."""
    return _Scaled.apply(x, factor) if factor != 1.0 and x.requires_grad else x


def summed(x: Tensor, group: str, factor: float) -> Tensor:
    """``x``, its gradient summed over the group and multiplied by ``factor``."""
    return _Summed.apply(x, group, factor) if x.requires_grad else x


def _all_reduce(x: Tensor, group: str, stage: str) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    all_reduce(total, group, stage)
    return total


def _all_reduce_fake(x: Tensor, group: str, stage: str) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


define("all_reduce(Tensor x, str group, str stage) -> Tensor", _all_reduce, _all_reduce_fake)


def all_reduce(x: Tensor, name: str, stage: str) -> None:
    """Sum a contiguous tensor over a group, in place; counted at the ring's volume."""
    group = resolve(name)
    moved = 2 * x.numel() * x.element_size() * (group.size - 1) // group.size
    group.counters.add(stage, "all_reduce", moved, moved)
    dist.all_reduce(x, group=group.process_group)


class ParameterSum:
    """Sums what one backward pass adds to the gradients of parameters.

    Hooks on the parameters put the gradients of earlier passes aside (accumulation), a callback at
    the end of the pass sums the new ones in buckets and adds the earlier ones. Every rank must run
    backward over the same parameters.
    """

    def __init__(self, group: str) -> None:
        self.group = group
        self.enabled = True
        self.parameters: list[weakref.ref[Tensor]] = []
        self.known: dict[int, int] = {}
        self.earlier: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.handles: list[Any] = []

    def watch(self, module: nn.Module) -> None:
        """Sum the gradients of these parameters too (adapters come later than the model)."""
        for p in module.parameters():
            position = self.known.get(id(p))
            if p.requires_grad and (position is None or self.parameters[position]() is not p):
                self.known[id(p)] = len(self.parameters)
                self.handles.append(p.register_hook(self._hook(len(self.parameters))))
                self.parameters.append(weakref.ref(p))

    def remove(self) -> None:
        """Leave the parameters alone from now on."""
        for handle in self.handles:
            handle.remove()

    def _hook(self, position: int) -> Any:
        def hook(grad: Tensor) -> None:
            parameter = self.parameters[position]()
            if parameter is None or not self.enabled or position in self.earlier:
                return
            if not self.earlier:
                torch.autograd.Variable._execution_engine.queue_callback(self._finish)
            self.earlier[position] = (parameter, parameter.grad)
            parameter.grad = None

        return hook

    def _finish(self) -> None:
        earlier, self.earlier = self.earlier, {}
        new = [(p, old) for _, (p, old) in sorted(earlier.items())]
        with torch.no_grad():
            for bucket in _buckets(p for p, _ in new if p.grad is not None):
                flat = torch.cat([p.grad.reshape(-1) for p in bucket])
                all_reduce(flat, self.group, "parameters (backward)")
                at = 0
                for p in bucket:
                    p.grad.copy_(flat[at : at + p.numel()].view_as(p))
                    at += p.numel()
            for p, old in new:
                if old is not None:
                    p.grad = old if p.grad is None else old.add_(p.grad)


def _buckets(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    """Parameters of one element type and device, in order, of about ``BUCKET`` bytes together."""
    buckets: list[list[Tensor]] = []
    filled: dict[tuple[torch.dtype, torch.device], int] = {}
    open_: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for p in parameters:
        key = (p.dtype, p.device)
        if key not in open_ or filled[key] >= BUCKET:
            open_[key], filled[key] = [], 0
            buckets.append(open_[key])
        open_[key].append(p)
        filled[key] += p.numel() * p.element_size()
    return buckets
