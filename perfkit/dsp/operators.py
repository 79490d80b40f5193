"""``torch.ops.perfkit_dsp``: the primitives as operators that torch.compile can trace.

Operators are keyed by the *name* of a process group, so graphs hold no process group; each has a
fake kernel with the strides of the real one, and a gradient made of the same operators. An
asynchronous form is a pair: ``*_start`` returns a buffer still being filled, which only the
matching ``*_finish`` may touch. ``fresh`` makes a pair share no memory with its inputs, which a
compiler that reuses buffers needs and eager code does not.

A gradient goes back in the stage of its forward call, marked ``(backward)`` in the counters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from perfkit.comm.group import resolve
from perfkit.dsp import exchange

NAMESPACE = "perfkit_dsp"
_library = torch.library.Library(NAMESPACE, "FRAGMENT")
_ops = getattr(torch.ops, NAMESPACE)
_BACKWARD = " (backward)"


def backward_stage(stage: str) -> str:
    return stage if stage.endswith(_BACKWARD) else stage + _BACKWARD


def define(
    schema: str,
    run: Callable[..., Any],
    fake: Callable[..., Any],
    setup: Callable[..., None] | None = None,
    backward: Callable[..., tuple[Any, ...]] | None = None,
) -> None:
    """Define one operator with its kernel, fake kernel and, unless it has none, gradient."""
    name = schema.partition("(")[0]
    _library.define(schema)
    _library.impl(name, run, "CompositeExplicitAutograd")
    name = f"{NAMESPACE}::{name}"
    torch.library.register_fake(name, fake, lib=_library)
    if backward is not None:
        torch.library.register_autograd(name, backward, setup_context=setup, lib=_library)


def _register(
    schema: str,
    run: Callable[..., Tensor],
    fake: Callable[..., Tensor],
    keep: Callable[..., tuple[Any, ...]],
    backward: Callable[..., Tensor],
    differentiable: int = 0,
) -> None:
    """Define an operator of which one input has a gradient, and one result.

    ``keep`` picks from the inputs what ``backward(gradient, *kept)`` needs, as plain numbers and
    text: no tensor is saved. ``differentiable`` is the position of that input.
    """
    after = schema.partition(")")[0].count(",") - differentiable

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.kept = keep(*inputs)

    def gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return (*[None] * differentiable, backward(grad, *ctx.kept), *[None] * after)

    define(schema, run, fake, setup, gradient)


# -- switch ---------------------------------------------------------------------------------


def _switch(x: Tensor, group: str, from_dim: int, to_dim: int, size: int, stage: str) -> Tensor:
    member = resolve(group)
    shape = exchange.switched_shape(x, member, from_dim, to_dim, size)
    received = exchange.launch_switch(x, group, from_dim, to_dim, size, False, stage)
    return exchange.land_switch(
        received, group, (from_dim, to_dim), shape, x.shape[to_dim], False, stage
    )


def _switch_fake(x: Tensor, group: str, from_dim: int, to_dim: int, size: int, _: str) -> Tensor:
    return x.new_empty(exchange.switched_shape(x, resolve(group), from_dim, to_dim, size))


def _switch_keep(
    x: Tensor, group: str, from_dim: int, to_dim: int, size: int, stage: str
) -> tuple[Any, ...]:
    return group, to_dim, from_dim, x.shape[to_dim], backward_stage(stage)


def _switch_back(grad: Tensor, *reversed_call: Any) -> Tensor:
    return _ops.switch(grad, *reversed_call)


_register(
    "switch(Tensor x, str group, int from_dim, int to_dim, SymInt size, str stage) -> Tensor",
    _switch,
    _switch_fake,
    _switch_keep,
    _switch_back,
)


# -- asynchronous switch --------------------------------------------------------------------
#
# Overlaps backward too: the gradient of a finish is a buffer being filled by the reversed
# exchange, and the gradient of a start waits for it. Such a buffer has the size of the start's
# input, not of its output, so it cannot be the gradient of the output buffer. Start therefore
# returns a token as well, of the right size but without memory (stride 0), that carries it.
# Where gradients are differentiated again (grad mode is on in backward), both take the
# synchronous operator instead, since a buffer being filled has no derivative.


def _switch_start(
    x: Tensor, group: str, from_dim: int, to_dim: int, size: int, fresh: bool, stage: str
) -> tuple[Tensor, Tensor]:
    received = exchange.launch_switch(x, group, from_dim, to_dim, size, fresh, stage)
    return received, x.new_empty(()).expand(x.numel())


def _switch_start_fake(
    x: Tensor, group: str, from_dim: int, to_dim: int, size: int, fresh: bool, stage: str
) -> tuple[Tensor, Tensor]:
    count: Any = 1
    for n in exchange.switched_shape(x, resolve(group), from_dim, to_dim, size):
        count = count * n
    return x.new_empty((count,)), x.new_empty(()).expand(x.numel())


def _switch_start_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, group, from_dim, to_dim, size, fresh, stage = inputs
    ctx.mark_non_differentiable(output[0])
    ctx.set_materialize_grads(False)
    ctx.shape = list(x.shape)
    ctx.reversed = (group, to_dim, from_dim, ctx.shape, size, fresh, backward_stage(stage))


def _switch_start_back(ctx: Any, _: Tensor | None, grad: Tensor) -> tuple[Any, ...]:
    if torch.is_grad_enabled():
        return grad.view(ctx.shape), *[None] * 6
    return _ops.switch_finish(grad, None, *ctx.reversed), *[None] * 6


define(
    "switch_start(Tensor x, str group, int from_dim, int to_dim, SymInt size, bool fresh, "
    "str stage) -> (Tensor, Tensor)",
    _switch_start,
    _switch_start_fake,
    _switch_start_setup,
    _switch_start_back,
)


def _switch_finish(
    received: Tensor,
    token: Tensor | None,
    group: str,
    from_dim: int,
    to_dim: int,
    shape: Sequence[int],
    to_size: int,
    fresh: bool,
    stage: str,
) -> Tensor:
    return exchange.land_switch(received, group, (from_dim, to_dim), shape, to_size, fresh, stage)


def _switch_finish_fake(
    received: Tensor, token: Tensor | None, group: str, _f: int, _t: int, shape: Any, *_: Any
) -> Tensor:
    return received.new_empty(shape)


def _switch_finish_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, _, group, from_dim, to_dim, _, to_size, fresh, stage = inputs
    ctx.reversed = (group, to_dim, from_dim, to_size)
    ctx.fresh, ctx.stage = fresh, backward_stage(stage)


def _switch_finish_back(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    if torch.is_grad_enabled():
        flat = _ops.switch(grad, *ctx.reversed, ctx.stage).view(-1)
    else:
        flat, _ = _ops.switch_start(grad, *ctx.reversed, ctx.fresh, ctx.stage)
    return None, flat, *[None] * 7


define(
    "switch_finish(Tensor received, Tensor? token, str group, int from_dim, int to_dim, "
    "SymInt[] shape, SymInt to_size, bool fresh, str stage) -> Tensor",
    _switch_finish,
    _switch_finish_fake,
    _switch_finish_setup,
    _switch_finish_back,
)


# -- split ----------------------------------------------------------------------------------


def _split(x: Tensor, group: str, dim: int, stage: str) -> Tensor:
    return exchange.run_split(x, group, dim)


def _split_fake(x: Tensor, group: str, dim: int, stage: str) -> Tensor:
    return x.new_empty(exchange.split_shape(x, resolve(group), dim))


def _split_keep(x: Tensor, group: str, dim: int, stage: str) -> tuple[Any, ...]:
    return group, dim, x.shape[dim], False, backward_stage(stage)


def _split_back(grad: Tensor, *gather_call: Any) -> Tensor:
    return _ops.gather(grad, *gather_call)


_register(
    "split(Tensor x, str group, int dim, str stage) -> Tensor",
    _split,
    _split_fake,
    _split_keep,
    _split_back,
)


# -- gather ---------------------------------------------------------------------------------


def _gather(x: Tensor, group: str, dim: int, size: int, partial: bool, stage: str) -> Tensor:
    shape = list(x.shape)
    shape[dim] = size
    received = exchange.launch_gather(x, group, dim, size, False, stage)
    return exchange.land_gather(received, group, dim, shape, False, stage)


def _gather_fake(x: Tensor, group: str, dim: int, size: int, partial: bool, stage: str) -> Tensor:
    shape = list(x.shape)
    shape[dim] = size
    return x.new_empty(shape)


def _gather_keep(
    x: Tensor, group: str, dim: int, size: int, partial: bool, stage: str
) -> tuple[Any, ...]:
    return group, dim, partial, backward_stage(stage)


def _gather_back(grad: Tensor, group: str, dim: int, partial: bool, stage: str) -> Tensor:
    if partial:
        return _ops.reduce_scatter(grad, group, dim, stage)
    return _ops.split(grad, group, dim, stage)


_register(
    "gather(Tensor x, str group, int dim, SymInt size, bool partial, str stage) -> Tensor",
    _gather,
    _gather_fake,
    _gather_keep,
    _gather_back,
)


# -- reduce_scatter -------------------------------------------------------------------------


def _reduce_scatter(x: Tensor, group: str, dim: int, stage: str) -> Tensor:
    shape = exchange.split_shape(x, resolve(group), dim)
    received = exchange.launch_reduce_scatter(x, group, dim, False, stage)
    return exchange.land_reduce_scatter(received, group, dim, shape, x.shape, False, stage)


def _reduce_scatter_keep(x: Tensor, group: str, dim: int, stage: str) -> tuple[Any, ...]:
    return group, dim, x.shape[dim], True, backward_stage(stage)


_register(
    "reduce_scatter(Tensor x, str group, int dim, str stage) -> Tensor",
    _reduce_scatter,
    _split_fake,
    _reduce_scatter_keep,
    _split_back,
)


# -- asynchronous gather and reduce_scatter -------------------------------------------------
#
# Their finish takes the input as well, and the gradient goes from there straight to the input:
# the buffer itself carries none, because the reversed collective fills one of another size.


def _gather_start(x: Tensor, group: str, dim: int, size: int, fresh: bool, stage: str) -> Tensor:
    return exchange.launch_gather(x, group, dim, size, fresh, stage)


def _gather_start_fake(
    x: Tensor, group: str, dim: int, size: int, fresh: bool, stage: str
) -> Tensor:
    count = size
    for d, n in enumerate(x.shape):
        count = count if d == dim else count * n
    return x.new_empty((count,))


define(
    "gather_start(Tensor x, str group, int dim, SymInt size, bool fresh, str stage) -> Tensor",
    _gather_start,
    _gather_start_fake,
)


def _gather_finish(
    received: Tensor,
    x: Tensor,
    group: str,
    dim: int,
    shape: Sequence[int],
    partial: bool,
    fresh: bool,
    stage: str,
) -> Tensor:
    return exchange.land_gather(received, group, dim, shape, fresh, stage)


def _finish_fake(
    received: Tensor, x: Tensor, group: str, dim: int, shape: Sequence[int], *_: Any
) -> Tensor:
    return received.new_empty(shape)


def _gather_finish_keep(
    received: Tensor,
    x: Tensor,
    group: str,
    dim: int,
    shape: Sequence[int],
    partial: bool,
    fresh: bool,
    stage: str,
) -> tuple[Any, ...]:
    return group, dim, partial, backward_stage(stage)


_register(
    "gather_finish(Tensor received, Tensor x, str group, int dim, SymInt[] shape, bool partial, "
    "bool fresh, str stage) -> Tensor",
    _gather_finish,
    _finish_fake,
    _gather_finish_keep,
    _gather_back,
    differentiable=1,
)


def _reduce_scatter_start(x: Tensor, group: str, dim: int, fresh: bool, stage: str) -> Tensor:
    return exchange.launch_reduce_scatter(x, group, dim, fresh, stage)


def _reduce_scatter_start_fake(x: Tensor, group: str, dim: int, fresh: bool, stage: str) -> Tensor:
    member = resolve(group)
    count: Any = 1
    for n in exchange.split_shape(x, member, dim):
        count = count * n
    return x.new_empty((exchange.reduce_rows(x, member, dim), count))


define(
    "reduce_scatter_start(Tensor x, str group, int dim, bool fresh, str stage) -> Tensor",
    _reduce_scatter_start,
    _reduce_scatter_start_fake,
)


def _reduce_scatter_finish(
    received: Tensor,
    x: Tensor,
    group: str,
    dim: int,
    shape: Sequence[int],
    fresh: bool,
    stage: str,
) -> Tensor:
    return exchange.land_reduce_scatter(received, group, dim, shape, x.shape, fresh, stage)


def _reduce_scatter_finish_keep(
    received: Tensor,
    x: Tensor,
    group: str,
    dim: int,
    shape: Sequence[int],
    fresh: bool,
    stage: str,
) -> tuple[Any, ...]:
    return group, dim, x.shape[dim], True, backward_stage(stage)


_register(
    "reduce_scatter_finish(Tensor received, Tensor x, str group, int dim, SymInt[] shape, "
    "bool fresh, str stage) -> Tensor",
    _reduce_scatter_finish,
    _finish_fake,
    _reduce_scatter_finish_keep,
    _split_back,
    differentiable=1,
)
