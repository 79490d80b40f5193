"""A tensor of which this rank holds a part, and that user code sees whole.

Mechanism, chosen after prototypes on Latte (diffusers), TimeSformer (transformers) and a block
under torch.compile:

- A *rewritten graph* (torch.export, then local view sizes) loses what makes the module the user's:
  hooks, checkpointing flags, train and eval, adapters added later, other shapes.
- A *tensor subclass* keeps the user's Python running, but Dynamo refuses to make one inside a
  graph (``_make_wrapper_subclass``), so fullgraph compilation is out.
- A *function mode over plain local tensors* leaves local sizes where C++ code looks past the mode,
  which gives wrong numbers in silence.
- What is used here: an object that is no tensor, has the whole shape, and answers every torch
  function through ``__torch_function__``. The user's ``forward`` runs as it is; each function runs
  on local parts, with plain autograd below, so gradients are those of the primitives. Dynamo
  inlines it. A function without a rule runs on whole tensors: slower, never wrong. It does not
  pass for a tensor in ``isinstance``: torch's C++ code would take it for one and crash.

Gradients: that of a part is the part of the gradient. A value that every rank holds has a *partial*
gradient, the sum over ranks being the true one, however it is used; so a split fills with zeros
and a gather is a reduce_scatter in backward. Parameters are summed at the end
(:mod:`perfkit.dsp.gradients`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from perfkit.comm.shards import shard_interval, shard_length
from perfkit.dsp.primitives import Gradient, gather, switch
from perfkit.errors import InternalError, SwitchError
from perfkit.frontends.fx import Axis, fused, unfolded
from perfkit.frontends.fx_call import names

if TYPE_CHECKING:
    from perfkit.dsp.dispatch import Run

Places = dict[str, Axis]


@dataclass(init=False, eq=False, repr=False)
class Sharded:
    """A tensor of a parallel region: global ``shape``, the places of its axes, a local part.

    ``held`` names the axis of which ``local`` has this rank's part (balanced, maybe empty), None
    where it is whole. ``local`` stores the dimensions that a held axis spans as one.

    Wrappers of modules look for tensors in arguments and results, to hang hooks on them (FSDP): in
    dataclasses from torch 2.13 on, in pytrees before.
    """

    local: Tensor
    shape: torch.Size
    places: Places
    held: str | None
    run: Run
    value: int

    def __init__(
        self,
        local: Tensor,
        shape: Sequence[int],
        places: Places,
        held: str | None,
        run: Run,
        value: int = -1,
    ) -> None:
        self.local = local
        self.shape = torch.Size(shape)
        self.places = places
        self.held = held
        self.run = run
        self.value = value
        self.copies: dict[str | None, Sharded] = {}

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for x in (*args, *kwargs.values()):
            if isinstance(x, Sharded):
                return x.run.call(func, args, kwargs)
            if type(x) in (list, tuple):
                for y in x:
                    if isinstance(y, Sharded):
                        return y.run.call(func, args, kwargs)
        return NotImplemented

    # What needs no computation. Sizes are those of the whole tensor.

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return len(self.shape)

    def numel(self) -> int:
        return self.shape.numel()

    def __len__(self) -> int:
        return self.shape[0]

    def __hash__(self) -> int:
        return id(self)

    def __bool__(self) -> bool:
        return bool(whole(self))

    def is_floating_point(self) -> bool:
        return self.local.is_floating_point()

    def is_complex(self) -> bool:
        return self.local.is_complex()

    def is_contiguous(self, *_: Any, **__: Any) -> bool:
        return self.local.is_contiguous()

    def element_size(self) -> int:
        return self.local.element_size()

    def get_device(self) -> int:
        return self.local.get_device()

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.local.dtype

    @property
    def device(self) -> torch.device:
        return self.local.device

    @property
    def layout(self) -> Any:
        return self.local.layout

    @property
    def is_cuda(self) -> bool:
        return self.local.is_cuda

    @property
    def requires_grad(self) -> bool:
        return self.local.requires_grad

    @property
    def mT(self) -> Any:
        return self.run.call(torch.Tensor.transpose, (self, -2, -1), {})

    @property
    def T(self) -> Any:
        dims = tuple(range(self.ndim - 1, -1, -1))
        return self.run.call(torch.Tensor.permute, (self, dims), {})

    def __iter__(self) -> Any:
        return iter(self.run.call(torch.Tensor.unbind, (self,), {}))

    def __repr__(self) -> str:
        return f"Sharded({tuple(self.shape)}, {self.dtype}, held={self.held})"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _PLAIN_ATTRIBUTES:
            return getattr(self.local, name)
        method = getattr(torch.Tensor, name)
        if not callable(method):
            raise AttributeError(f"{name} of a sharded tensor is not supported")
        run = self.run

        def bound(*args: Any, **kwargs: Any) -> Any:
            return run.call(method, (self, *args), kwargs)

        return bound


_PLAIN_ATTRIBUTES = names(
    "is_nested is_sparse is_quantized is_mkldnn is_meta is_mps is_xpu is_cpu itemsize"
)


def _operator(name: str) -> Callable[..., Any]:
    method = getattr(torch.Tensor, name)

    def forward(self: Sharded, *args: Any) -> Any:
        return self.run.call(method, (self, *args), {})

    return forward


pytree.register_pytree_node(
    Sharded,
    lambda x: ([x.local], (x.shape, x.places, x.held, x.run, x.value)),
    lambda locals_, context: Sharded(next(iter(locals_)), *context),
)

for _name in names("""
    __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __mul__ __rmul__ __imul__
    __truediv__ __rtruediv__ __itruediv__ __floordiv__ __mod__ __pow__ __rpow__ __ipow__
    __neg__ __pos__ __abs__ __invert__ __eq__ __ne__ __lt__ __le__ __gt__ __ge__
    __and__ __or__ __xor__ __matmul__ __rmatmul__ __getitem__ __setitem__
"""):
    setattr(Sharded, _name, _operator(_name))


# -- changes of layout ------------------------------------------------------------------------


def part_of(x: Tensor, axis: Axis, run: Run) -> Tensor:
    """This rank's part of a whole tensor: its share of the axis, and all that lies beside it.

    ``x`` stores the dimensions that the axis spans as one. The gradient is partial: zero outside.
    """
    start, stop = shard_interval(axis.length, run.ranks, run.rank)
    size = x.shape[axis.dim]
    if axis.outer == 1 and axis.extent == size:
        return x.narrow(axis.dim, start * axis.inner, (stop - start) * axis.inner)
    body = x.narrow(axis.dim, axis.start, axis.extent)
    shape = list(body.shape)
    flat = axis._replace(span=1)
    body = body.reshape(unfolded(shape, flat, axis.length))
    body = body.narrow(axis.dim + 1, start, stop - start)
    body = body.reshape(fused(shape, axis._replace(start=0, span=1), stop - start))
    return _beside(x, body, axis, axis.extent)


def _beside(x: Tensor, body: Tensor, axis: Axis, extent: int) -> Tensor:
    """``body`` with what ``x`` has before and after the ``extent`` indices of an axis."""
    tail = x.shape[axis.dim] - axis.start - extent
    parts = [body]
    if axis.start:
        parts.insert(0, x.narrow(axis.dim, 0, axis.start))
    if tail:
        parts.append(x.narrow(axis.dim, axis.start + extent, tail))
    return torch.cat(parts, axis.dim) if len(parts) > 1 else body


def _fold(x: Tensor, shape: Sequence[int], axis: Axis) -> Tensor:
    """The dimensions of a span as one."""
    return x if axis.span == 1 else x.reshape(fused(shape, axis, axis.length))


def converted(x: Sharded, held: str | None) -> Sharded:
    """The same tensor in another layout; each made once. ``held`` must be an axis of ``x``."""
    if x.held == held:
        return x
    key = x.run.key()
    found = x.copies.get(held)
    if found is None:
        local = x.run.recall(key)
        if local is None:
            change = f"{x.held} -> {held or 'replicated'}"
            local = x.run.timed(change, lambda label: _moved(x, held))
            x.run.keep(key, local)
        found = Sharded(local, x.shape, x.places, held, x.run, x.value)
        x.copies[held] = found
    return found


def whole(x: Any) -> Any:
    """The plain tensor that a sharded one is a part of; anything else as it is."""
    return converted(x, None).local if isinstance(x, Sharded) else x


def _moved(x: Sharded, held: str | None) -> Tensor:
    run = x.run
    if run.ranks == 1:
        full = x.local.reshape(x.shape)
        return full if held is None else _fold(full, x.shape, x.places[held])
    if x.held is None:
        axis = x.places[held or ""]
        return part_of(_fold(x.local, x.shape, axis), axis, run)
    source = x.places[x.held]
    if held is not None and not x.places[held].span > 1 and source.span == 1:
        found = _switched(x, source, x.places[held], f"{x.held} -> {held}")
        if found is not None:
            return found
    full = gathered(x, run.stage(f"{x.held} -> replicated"))
    if held is None:
        return full
    axis = x.places[held]
    return part_of(_fold(full, x.shape, axis), axis, run)


def is_pure(x: Sharded) -> bool:
    """Whether nothing but the axis that it is held on lies in that dimension."""
    axis = x.places[x.held or ""]
    return math.prod(x.shape[axis.dim : axis.dim + axis.span]) == axis.extent


def gathered(x: Sharded, stage: str, grad: Gradient = "partial") -> Tensor:
    """The whole of a tensor that is held on an axis; ``grad`` as in :func:`dsp.gather`."""
    run, axis = x.run, x.places[x.held or ""]
    if run.ranks == 1:
        return x.local.reshape(x.shape)
    length = shard_length(axis.length, run.ranks, run.rank)
    local = axis.outer * length * axis.inner
    body = x.local.narrow(axis.dim, axis.start, local)
    if grad == "replicated" and not is_pure(x):
        raise InternalError("what lies beside an axis has a gradient of its own")
    shape = list(body.shape)
    body = body.reshape(unfolded(shape, axis._replace(span=1), length))
    body = gather(body, run.group, dim=axis.dim + 1, size=axis.length, grad=grad, stage=stage)
    body = body.reshape(fused(shape, Axis(axis.dim, axis.outer, length, axis.inner), axis.length))
    return _beside(x.local, body, axis, local).reshape(x.shape)


def _switched(x: Sharded, source: Axis, target: Axis, stage: str) -> Tensor | None:
    """From one axis to another by one all-to-all; None where their places do not allow it."""
    run = x.run
    here = shard_length(source.length, run.ranks, run.rank)
    there = shard_length(target.length, run.ranks, run.rank)
    if source.dim != target.dim:
        beside = [a for a in (source, target) if a.extent != x.shape[a.dim]]
        if beside:
            return None
        first, second = (source, target) if source.dim < target.dim else (target, source)
        lengths = {first.dim: first.length, second.dim: second.length}
        lengths[source.dim] = here
        shape = list(x.local.shape)
        shape[second.dim : second.dim + 1] = [second.outer, lengths[second.dim], second.inner]
        shape[first.dim : first.dim + 1] = [first.outer, lengths[first.dim], first.inner]
        at = {first.dim: first.dim + 1, second.dim: second.dim + 3}
        body = _exchange(x, x.local.reshape(shape), at[source.dim], at[target.dim], source, stage)
        final = list(x.local.shape)
        final[source.dim] = source.extent
        final[target.dim] = target.outer * there * target.inner
        return body.reshape(final)
    if (source.start, source.extent) != (target.start, target.extent):
        return None
    outer, inner = (source, target) if source.inner > target.inner else (target, source)
    between, rest = divmod(outer.inner, inner.length * inner.inner)
    if rest or between < 1:
        return None
    held = outer.outer * source.extent // source.length // outer.outer * here
    body = x.local.narrow(source.dim, source.start, held)
    sizes = {True: here, False: target.length}
    shape = list(body.shape)
    shape[source.dim : source.dim + 1] = [
        outer.outer, sizes[outer is source], between, sizes[inner is source], inner.inner
    ]  # fmt: skip
    at_outer, at_inner = source.dim + 1, source.dim + 3
    from_dim, to_dim = (at_outer, at_inner) if outer is source else (at_inner, at_outer)
    moved = _exchange(x, body.reshape(shape), from_dim, to_dim, source, stage)
    final = list(body.shape)
    final[source.dim] = target.extent // target.length * there
    return _beside(x.local, moved.reshape(final), source, held)


def _exchange(
    x: Sharded, body: Tensor, from_dim: int, to_dim: int, source: Axis, stage: str
) -> Tensor:
    if body.shape[from_dim] != shard_length(source.length, x.run.ranks, x.run.rank):
        raise SwitchError(f"{stage}: {tuple(body.shape)} is not a part of {tuple(x.shape)}")
    return switch(
        body,
        x.run.group,
        from_dim=from_dim,
        to_dim=to_dim,
        size=source.length,
        stage=x.run.stage(stage),
    )
