"""Dynamic sequence parallelism of a whole model, without changing it.

:func:`parallelize` runs the model once on shapes (:mod:`perfkit.dsp.trace`), plans
(:mod:`perfkit.dsp.stages`) and adds forward hooks. The model stays the user's object: class,
configuration, parameters and their names, training flags and checkpointing are as before. Its
forward runs as written, on sharded tensors (:mod:`perfkit.dsp.sharded`), for other shapes too.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from perfkit.comm.group import GroupLike, process_group_of
from perfkit.cost.transfer import Link
from perfkit.dsp.dispatch import Clock, Run
from perfkit.dsp.gradients import Gradients, ParameterSum, scaled, summed
from perfkit.dsp.plan import Graph
from perfkit.dsp.pricing import Mesh, Passes
from perfkit.dsp.sharded import Places, Sharded, gathered, is_pure
from perfkit.dsp.stages import Decision, Stages
from perfkit.dsp.trace import Trace, bound, first_sharded, traced
from perfkit.errors import PlanError
from perfkit.frontends.fx import whole as whole_axis

_STATE = "_perfkit_dsp"


@dataclass(frozen=True)
class Mixes:
    """What a module of an explicit plan mixes: one sequence axis, by a name of your choice."""

    axis: str


PlanLike = Literal["auto"] | Mapping[str, Mixes]


class Parallel:
    """What a parallelized model carries: its plan and its hooks."""

    def __init__(
        self, model: nn.Module, group: str, trace: Trace, decision: Decision, gradients: Gradients
    ) -> None:
        process_group = process_group_of(group)
        self.group, self.ranks, self.rank = group, process_group.size(), process_group.rank()
        self.trace, self.decision, self.gradients = trace, decision, gradients
        self.enabled = True
        self.clock: Clock | None = None
        self.inputs: dict[str, list[tuple[int, str]]] = {}
        for argument, dim, name in trace.inputs:
            if name in decision.followed:
                self.inputs.setdefault(argument, []).append((dim, name))
        self.names = tuple(
            name
            for name, p in inspect.signature(model.forward).parameters.items()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        )
        self.ndims = {a: max(d for d, _ in dims) + 1 for a, dims in self.inputs.items()}
        self.handles = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True),
            model.register_forward_hook(self._end, with_kwargs=True),
        ]
        for path, most in decision.modules.items():
            module = model.get_submodule(path)
            before, after = self._framing(path, most)
            self.handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            self.handles.append(module.register_forward_hook(after, with_kwargs=True))
        self.sum = ParameterSum(model, group) if gradients == "sum" and self.ranks > 1 else None

    def remove(self) -> None:
        """Give the model back as it was."""
        for handle in self.handles:
            handle.remove()
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

    # -- hooks -------------------------------------------------------------------------------

    def _begin(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not self.enabled or len(args) > len(self.names):
            return None
        run = Run(self.group, self.ranks, self.rank, self.decision.sites, clock=self.clock)
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
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
        return (), given

    def _end(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        if not self.enabled:
            return None
        found = self._outside(output)
        entered = first_sharded(args, kwargs)
        if entered is not None:
            entered.run.over = True
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

    @staticmethod
    def _framing(path: str, most: int) -> tuple[Callable[..., None], Callable[..., None]]:
        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found = first_sharded(args, kwargs)
            if found is not None:
                found.run.enter(path, most)

        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
            found = first_sharded(args, kwargs)
            if found is not None:
                found.run.leave()

        return before, after


def parallelize(
    model: nn.Module,
    group: GroupLike = None,
    plan: PlanLike = "auto",
    *,
    sample: Any,
    gradients: Gradients = "sum",
    mesh: Mesh | None = None,
    passes: Passes | None = None,
) -> nn.Module:
    """Shard a model's activations over a group along one sequence axis at a time.

    Every rank calls the model with the whole input and gets the whole output; parameters are whole
    on every rank (or sharded by FSDP over another mesh axis).

    Args:
        model: runs as it is; nothing in it is replaced.
        group: a process group, a mesh of one axis (``mesh["sp"]``), a name, or None for all ranks.
        plan: ``"auto"``, or the modules that mix an axis, by pattern of their paths, as in
            ``{"transformer_blocks.*": Mixes("S"), "temporal_transformer_blocks.*": Mixes("T")}``.
            Each of these runs in one layout; the rest is planned.
        sample: arguments of one call (a tensor, a tuple, or a mapping of names); only shapes and
            element types matter, and calls may have other shapes.
        gradients: ``"sum"`` gives every rank the gradients of one process; ``"mean"`` is for DDP or
            FSDP over the flattened (dp, sp) mesh (:mod:`perfkit.dsp.gradients`).
        mesh: rates to plan with. By default arithmetic counts more than communication, so that
            whatever can be sharded is, with few bytes, however small the sample; with the rates
            of a machine, replication is chosen where it is faster.
        passes: training with or without recomputation, or inference; by default as the model is.

    Returns:
        ``model``.

    Raises:
        PlanError: a pattern that matches nothing, an axis that nobody mixes, a model whose sizes
            depend on data, a sample that does not fit.
    """
    if getattr(model, _STATE, None) is not None:
        raise PlanError("the model is parallelized already; dsp.restore(model) undoes that")
    if not isinstance(plan, Mapping) and plan != "auto":
        raise PlanError(f"unknown plan {plan!r}: expected 'auto' or patterns with what they mix")
    process_group = process_group_of(group)
    trace = traced(model, bound(model, *arguments(sample)))
    fixed = _fixed(model, trace, plan) if isinstance(plan, Mapping) else []
    axes = trace.candidates()
    if not axes:
        raise PlanError(
            "no axis can be sharded: none is mixed by one part and carried by another. "
            f"Axes attended over: {sorted(trace.attended()) or 'none'}"
        )
    stages = Stages(trace, axes, fixed)
    where = mesh or _willing(stages.graph()[0], process_group.size())
    decision = stages.decide(where, passes or Passes(training=model.training))
    model.__dict__[_STATE] = Parallel(
        model, process_group.group_name, trace, decision, gradients
    )
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


def _willing(graph: Graph, ranks: int) -> Mesh:
    """Rates at which all arithmetic takes as long as three switches in front of every stage.

    So running a stage replicated is dearer than switching, and a few percent of imbalance is not.
    """
    size = math.prod(graph.axes.values())
    switches = sum(stage.width * size / ranks for stage in graph.stages)
    flops = sum(stage.flops for stage in graph.stages)
    return Mesh((ranks,), (Link(1.0),), max(flops, 1.0) / (3.0 * max(switches, 1.0)))


def _matches(path: str, pattern: str) -> bool:
    """Whether a module's path fits; ``*`` stands for (a part of) one name between dots."""
    names, parts = path.split("."), pattern.split(".")
    return len(names) == len(parts) and all(map(fnmatchcase, names, parts))


def _fixed(
    model: nn.Module, trace: Trace, plan: Mapping[str, Mixes]
) -> list[tuple[list[int], str]]:
    """The calls inside the modules of an explicit plan, by module; axes get the plan's names."""
    candidates = set(trace.candidates())
    matched: dict[tuple[str, str, int], list[int]] = {}
    for pattern, mixes in plan.items():
        if not any(_matches(path, pattern) for path, _ in model.named_modules()):
            raise PlanError(
                f"pattern {pattern!r} matches no module; there are "
                f"{', '.join(name for name, _ in model.named_children())}"
            )
        before = len(matched)
        for number, call in enumerate(trace.calls):
            frame = next((f for f in call.frames if _matches(f[0], pattern)), None)
            if frame is not None:
                matched.setdefault((mixes.axis, *frame), []).append(number)
        if len(matched) == before:
            raise PlanError(f"pattern {pattern!r} matches modules that the sample does not run")
    attended = trace.attended()
    names: dict[str, str] = {}
    for axis in dict.fromkeys(mixes.axis for mixes in plan.values()):
        choices = set(candidates)
        for (wanted, path, _), calls in matched.items():
            if wanted == axis:
                choices &= {n for n in candidates if attended[n] & set(calls)}
                if not choices:
                    raise PlanError(
                        f"module {path!r} is said to mix {axis!r}, but it attends over no axis "
                        f"that another part of the model carries (such axes: "
                        f"{sorted(candidates) or 'none'})"
                    )
        if len(choices) > 1:
            raise PlanError(f"the modules that mix {axis!r} share several axes: {sorted(choices)}")
        (found,) = choices
        if found in names:
            raise PlanError(f"{axis!r} and {names[found]!r} are the same axis: {found}")
        names[found] = axis
    for (axis, path, _), calls in matched.items():
        own = next(n for n, new in names.items() if new == axis)
        others = {n for n in candidates - {own} if attended[n] & set(calls)}
        if others:
            also = sorted(names.get(n, n) for n in others)
            raise PlanError(
                f"module {path!r} is said to mix {axis!r} only, but also attends over {also}"
            )
    trace.rename(names)
    seen: set[int] = set()
    groups = []
    for (axis, _, _), calls in matched.items():
        own_calls = [c for c in calls if c not in seen]
        seen |= set(own_calls)
        groups.append((own_calls, axis))
    return groups
