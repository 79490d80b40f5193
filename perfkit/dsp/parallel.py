"""Dynamic sequence parallelism of a whole model, without changing it.

:func:`parallelize` runs the model once on shapes (:mod:`perfkit.dsp.trace`), plans
(:mod:`perfkit.dsp.stages`) and puts a method around the model's ``forward``. The model stays the
user's object: class, configuration, parameters and their names, training flags and checkpointing
are as before. Its forward runs as written, on sharded tensors (:mod:`perfkit.dsp.sharded`), for
other shapes too. (Hooks on the model itself would do, but torch.compile calls those of the module
that it is given outside of the graph.)
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils import _pytree as pytree

from perfkit.comm.group import GroupLike, process_group_of
from perfkit.dsp.choice import Planned, Request, modules_of, planned
from perfkit.dsp.dispatch import Clock, Run, Sequences
from perfkit.dsp.fused import fused_attention
from perfkit.dsp.gradients import Gradients, ParameterSum, scaled, summed
from perfkit.dsp.kernels import KERNELS, Kernels, shares_memory
from perfkit.dsp.methods import PlanLike
from perfkit.dsp.peers.ring import ring_attention
from perfkit.dsp.pricing import Mesh, Passes
from perfkit.dsp.sharded import Places, Sharded, gathered, is_pure
from perfkit.dsp.trace import bound, first_sharded
from perfkit.errors import PlanError
from perfkit.frontends.fx import whole as whole_axis

_STATE = "_perfkit_dsp"
_SEQUENCES = Sequences()
_ALONG = {"ring": ring_attention, "fused": fused_attention}


class Parallel:
    """What a parallelized model carries: its plan, its own forward, and hooks on its modules."""

    def __init__(
        self,
        model: nn.Module,
        group: str,
        request: Request,
        planned: Planned,
        gradients: Gradients,
    ) -> None:
        process_group = process_group_of(group)
        self.group, self.ranks, self.rank = group, process_group.size(), process_group.rank()
        self.process_group = process_group
        self.request, self.gradients = request, gradients
        self.enabled, self.stale = True, False
        self.clock: Clock | None = None
        self.names = tuple(
            name
            for name, p in inspect.signature(model.forward).parameters.items()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        )
        self.model, self.own = model, vars(model).get("forward")
        self.original = model.forward
        model.forward = MethodType(_around(model.forward), self)
        self.framing: list[Any] = []
        self.sum = ParameterSum(group) if gradients == "sum" and self.ranks > 1 else None
        if self.sum is not None:
            self.sum.watch(model)
        self._follow(model, planned)

    def _follow(self, model: nn.Module, planned: Planned) -> None:
        """Take up a plan: hooks on the modules that places are counted in."""
        self.planned, self.stale = planned, False
        self.method, self.trace, self.decision = planned.method, planned.trace, planned.decision
        self.inputs: dict[str, list[tuple[int, str]]] = {}
        for argument, dim, name in self.trace.inputs:
            if name in self.decision.followed:
                self.inputs.setdefault(argument, []).append((dim, name))
        self.ndims = {a: max(d for d, _ in dims) + 1 for a, dims in self.inputs.items()}
        for handle in self.framing:
            handle.remove()
        self.framing = []
        for path, most in self.decision.modules.items():
            module = model.get_submodule(path)
            before = partial(self._before, path, most)
            self.framing.append(module.register_forward_pre_hook(before, with_kwargs=True))
            self.framing.append(module.register_forward_hook(self._after, with_kwargs=True))

    def __deepcopy__(self, memo: dict[int, Any]) -> Parallel:
        """For a copy of the model: the same plan and ranks, hooks and gradients of its own."""
        made = copy.copy(self)
        memo[id(self)] = made
        for name in ("model", "own", "original", "framing"):
            setattr(made, name, copy.deepcopy(getattr(self, name), memo))
        made.sum = None if self.sum is None else ParameterSum(self.group)
        return made

    def remove(self) -> None:
        """Give the model back as it was."""
        self.enabled = False  # where somebody else has put a function around ours, it stays
        for handle in self.framing:
            handle.remove()
        ours = vars(self.model).get("forward")
        if isinstance(ours, MethodType) and ours.__self__ is self:
            del self.model.forward
            if self.own is not None:
                self.model.forward = self.own
        if self.sum is not None:
            self.sum.remove()

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """The model as it was, inside this context: whole tensors, gradients of this rank."""
        self.enabled = False
        if self.sum is not None:
            self.sum.enabled = False
        try:
            yield
        finally:
            self.enabled = True
            if self.sum is not None:
                self.sum.enabled = True

    @contextlib.contextmanager
    def timed(self, clock: Clock) -> Iterator[None]:
        """Time changes of layout inside this context."""
        self.clock = clock
        try:
            yield
        finally:
            self.clock = None

    # -- around the model's forward ------------------------------------------------------------

    def forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The model's forward: whole tensors in and out, sharded ones inside."""
        if not self.enabled or len(args) > len(self.names):
            return self.original(*args, **kwargs)
        given = self._begin({**dict(zip(self.names, args, strict=False)), **kwargs})
        return self._end(given, self.original(**given))

    def _begin(self, given: dict[str, Any]) -> dict[str, Any]:
        group: GroupLike = self.group
        if torch.compiler.is_compiling():
            group = self.process_group  # Dynamo knows groups, but not how to find them by name
            torch._C._push_on_torch_function_stack(_SEQUENCES)
        else:
            self._keep_up(self.model, given)
        run = Run(
            group,
            self.ranks,
            self.rank,
            self.decision.sites,
            clock=self.clock,
            along=_ALONG.get(self.method),
        )
        factor = 1.0 if self.gradients == "sum" else 1.0 / self.ranks
        for name, dims in self.inputs.items():
            x = given.get(name)
            if not isinstance(x, Tensor) or isinstance(x, Sharded):
                raise PlanError(
                    f"argument {name!r} was a tensor in the sample and is {type(x).__name__} now"
                )
            if x.ndim < self.ndims[name]:
                raise PlanError(
                    f"argument {name!r} has shape {tuple(x.shape)}; in the sample it had "
                    f"{self.ndims[name]} dimensions or more"
                )
            places: Places = {axis: whole_axis(dim, x.shape[dim]) for dim, axis in dims}
            if self.ranks > 1:
                x = summed(x, self.group, factor)
            given[name] = run.wrap(x, x.shape, places, None)
        return given

    def _keep_up(self, model: nn.Module, given: Mapping[str, Any]) -> None:
        """Take notice of what was added to the model, and of what is around it."""
        if self.stale:
            self.stale = False
            if self.planned.modules != modules_of(model):
                with self.suspended():
                    found = planned(model, self.ranks, given, self.request)
                self._follow(model, found)
        if self.sum is not None and torch.is_grad_enabled():
            self.sum.watch(model)
        outer = DistributedDataParallel._get_active_ddp_module()
        if outer is None or self.ranks == 1:
            return
        mine = dist.get_process_group_ranks(process_group_of(self.group))
        every = dist.get_process_group_ranks(outer.process_group)
        if self.gradients == "sum" or not set(mine) <= set(every):
            raise PlanError(
                f"DDP averages over ranks {every}, and the model is sharded over {mine} with "
                f"gradients={self.gradients!r}: parallelize with gradients='mean', and let DDP "
                "average over the flattened (dp, sp) mesh"
            )

    def _end(self, given: dict[str, Any], output: Any) -> Any:
        if torch.compiler.is_compiling():
            torch._C._pop_torch_function_stack()
        found = self._outside(output)
        entered = first_sharded((), given)
        if entered is not None:
            entered.run.over = True
            if entered.run.strayed:
                self.stale = True
        return found

    def _outside(self, x: Any) -> Any:
        """A model's output with plain tensors."""
        if isinstance(x, (Sharded, Tensor)):
            return self._leaving(x)
        if type(x) in (list, tuple):
            return type(x)([self._outside(y) for y in x])
        if isinstance(x, (Mapping, tuple, list)):
            return pytree.tree_map(self._leaving, x, is_leaf=lambda y: isinstance(y, Sharded))
        return x

    def _leaving(self, x: Any) -> Any:
        """An output as a plain tensor, its gradient made partial."""
        mean = self.gradients == "mean"
        if isinstance(x, Sharded) and x.held is not None and is_pure(x):
            return scaled(gathered(x, "output", "replicated"), self.ranks if mean else 1.0)
        if isinstance(x, Sharded):
            x = x.local if x.held is None else gathered(x, "output")
        if not isinstance(x, Tensor):
            return x
        return scaled(x, 1.0 if mean else 1.0 / self.ranks)

    def _before(
        self, path: str, most: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        found = first_sharded(args, kwargs) if self.enabled else None
        if found is not None:
            found.run.enter(path, most)

    def _after(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        found = first_sharded(args, kwargs) if self.enabled else None
        if found is not None:
            found.run.leave()


def _around(original: Callable[..., Any]) -> Callable[..., Any]:
    """A function with the signature of a model's forward, for a method of :class:`Parallel`.

    As a method, not a closure, it follows when the model is copied (``copy.deepcopy``).
    """

    def forward(self: Parallel, *args: Any, **kwargs: Any) -> Any:
        return self.forward(args, kwargs)

    signature = inspect.signature(original)
    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    parameters = [first, *signature.parameters.values()]
    forward.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return forward


def parallelize(
    model: nn.Module,
    group: GroupLike = None,
    plan: PlanLike = "auto",
    *,
    sample: Any,
    gradients: Gradients = "sum",
    mesh: Mesh | None = None,
    passes: Passes | None = None,
    kernels: Kernels = "plain",
) -> nn.Module:
    """Shard a model's activations over a group along one sequence axis at a time.

    Every rank calls the model with the whole input and gets the whole output; parameters are whole
    on every rank (or sharded by FSDP over another mesh axis).

    Args:
        model: runs as it is; nothing in it is replaced.
        group: a process group, a mesh of one axis (``mesh["sp"]``), a name, or None for all ranks.
        plan: ``"auto"``, ``"dsp"``, ``"ulysses"``, ``"megatron"`` or ``"ring"``
            (:mod:`perfkit.dsp.methods`), or the modules that mix an axis, by pattern of their
            paths, as in ``{"transformer_blocks.*": Mixes("S"), "temporal_*.*": Mixes("T")}``.
            Each of these runs in one layout; the rest is planned.
        sample: arguments of one call (a tensor, a tuple, or a mapping of names); only shapes and
            element types matter, and calls may have other shapes.
        gradients: ``"sum"`` gives every rank the gradients of one process; ``"mean"`` is for DDP or
            FSDP over the flattened (dp, sp) mesh (:mod:`perfkit.dsp.gradients`).
        mesh: rates to plan with. By default arithmetic counts more than communication, so that
            whatever can be sharded is, with few bytes, however small the sample; with the rates
            of a machine, replication is chosen where it is faster.
        passes: training with or without recomputation, or inference; by default as the model is.
        kernels: how a stage between two switches runs where the plan is "auto" or "dsp":
            ``"plain"``, by collectives; ``"fused"``, with the switches inside its attention
            (:mod:`perfkit.dsp.fused`); ``"auto"``, the cheaper one by
            :mod:`perfkit.dsp.kernels`. :func:`explain` says which and why.

    Returns:
        ``model``.

    Raises:
        PlanError: a pattern that matches nothing, an axis that nobody mixes, a model whose sizes
            depend on data, a sample that does not fit.
    """
    if getattr(model, _STATE, None) is not None:
        raise PlanError("the model is parallelized already; dsp.restore(model) undoes that")
    if kernels not in KERNELS:
        raise PlanError(f"unknown kernels {kernels!r}: one of {', '.join(map(repr, KERNELS))}")
    if kernels != "plain" and plan not in ("auto", "dsp"):
        raise PlanError(f"kernels={kernels!r} needs the plan 'auto' or 'dsp', not {plan!r}")
    process_group = process_group_of(group)
    shared = kernels == "auto" and process_group.size() > 1 and shares_memory(group)
    request = Request(plan, mesh, passes, kernels, shared)
    found = planned(model, process_group.size(), bound(model, *arguments(sample)), request)
    model.__dict__[_STATE] = Parallel(model, process_group.group_name, request, found, gradients)
    return model


def restore(model: nn.Module) -> nn.Module:
    """Undo :func:`parallelize`."""
    state_of(model).remove()
    del model.__dict__[_STATE]
    return model


def state_of(model: nn.Module) -> Parallel:
    """What :func:`parallelize` attached to a model.

    Raises:
        PlanError: the model is not parallelized.
    """
    found = model.__dict__.get(_STATE)
    if not isinstance(found, Parallel):
        raise PlanError("the model is not parallelized: call dsp.parallelize first")
    return found


def arguments(sample: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a sample call."""
    if isinstance(sample, Mapping):
        return (), dict(sample)
    if isinstance(sample, (tuple, list)):
        return tuple(sample), {}
    return (sample,), {}
