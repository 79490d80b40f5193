"""A sample run of a model on shapes only: which call mixes which axis.

The model runs once under fake tensors (no memory, no arithmetic), with every dimension of its
inputs followed as an axis, and new axes where a convolution makes sequence dimensions (patch
embedding) or a view merges followed axes (``h w -> (h w)``). What comes out is a list of calls;
:mod:`perfkit.dsp.stages` plans on it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)

from perfkit.dsp.dispatch import Run, goes_round, holdable
from perfkit.dsp.sharded import Places, Sharded
from perfkit.dsp.widths import Column
from perfkit.errors import PlanError
from perfkit.frontends.fx import divided, is_whole
from perfkit.frontends.fx import whole as whole_axis
from perfkit.frontends.fx_access import FRESH
from perfkit.frontends.fx_call import Call, Reading, names

# Functions whose mixing makes an axis one that a model attends over or sums along.
_ATTENDS = names(
    "scaled_dot_product_attention softmax matmul bmm baddbmm __matmul__ einsum cumsum "
    "multi_head_attention_forward"
)
_ARITHMETIC = names("softmax layer_norm rms_norm gelu silu group_norm")
_VIEWS = frozenset({"reshape", "view", "flatten", "unflatten"})
Frame = tuple[str, int]


@dataclass(frozen=True)
class Value:
    """A tensor of the sample run: its bytes, and the axes it has."""

    bytes: int
    axes: frozenset[str]


@dataclass(frozen=True)
class TracedCall:
    """A call of the sample run. ``frames`` are the modules it is in (path, which call of it).

    ``rounds`` are the axes among ``mixed`` that ring attention can keep sharded.
    """

    function: str
    frames: tuple[Frame, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    mixed: frozenset[str]
    flops: float
    fresh: tuple[tuple[str, int], ...] = ()
    rounds: frozenset[str] = frozenset()


def _merged(parts: Sequence[str]) -> str:
    """The name of a merged axis: ``patches.1`` and ``patches.2`` give ``patches.1*2``."""
    prefixes = {p.rpartition(".")[0] for p in parts}
    if len(prefixes) > 1:
        return "*".join(parts)
    return f"{prefixes.pop()}.{'*'.join(p.rpartition('.')[2] for p in parts)}"


def _renamed(names: frozenset[str], new: Mapping[str, str]) -> frozenset[str]:
    return frozenset(new.get(n, n) for n in names)


@dataclass
class Trace:
    """The calls of a sample run in order, and its values by number.

    ``inputs`` names the axes of the model's arguments (argument, dimension, axis); ``parts`` says
    of which axes a merged one consists; ``features`` are axes that views divide the width of a
    layer into (attention heads); ``calls_of`` counts the calls of each module. ``widths`` are the
    widths of the values that linear layers give, ``splits`` the features that views divide the
    width of a value into (outer, length, inner). ``columns`` are axes of the outputs of linear
    layers, by number of call, given before the run.
    """

    calls: list[TracedCall] = field(default_factory=list)
    values: dict[int, Value] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    features: set[str] = field(default_factory=set)
    widths: dict[int, int] = field(default_factory=dict)
    splits: dict[int, dict[str, tuple[int, int, int]]] = field(default_factory=dict)
    columns: Mapping[int, Column] = field(default_factory=dict)
    inputs: list[tuple[str, int, str]] = field(default_factory=list)
    given: dict[int, str] = field(default_factory=dict)
    results: tuple[int, ...] = ()
    calls_of: dict[str, int] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)

    # -- what a run reports ------------------------------------------------------------------

    def note(self, call: Call, reading: Reading | None, outputs: Sequence[Sharded]) -> None:
        inputs = [x for x in call.tensors if isinstance(x, Sharded)]
        names = {name for x in inputs for name in x.places}
        mixed = {n for n in names if reading is None or not holdable(call, reading, n)}
        fresh = []
        for x in outputs:
            self.add(x)
            fresh += [
                (name, axis.dim)
                for name, axis in x.places.items()
                if name not in (reading.places if reading is not None else {})
            ]
        if call.name == "linear" and outputs:
            self.widths[outputs[0].value] = outputs[0].shape[-1]
        if reading is None:
            self.lost.setdefault(call.name, self.frames[-1][0] if self.frames else "")
        self.calls.append(
            TracedCall(
                call.name,
                tuple(self.frames),
                tuple(x.value for x in inputs),
                tuple(x.value for x in outputs),
                frozenset(mixed),
                _flops(call, outputs),
                tuple(dict.fromkeys(fresh)),
                frozenset(n for n in mixed if goes_round(call, n)),
            )
        )

    def add(self, x: Sharded) -> None:
        size = x.numel() * x.element_size()
        self.values[x.value] = Value(size, frozenset(x.places))

    def fresh(self, call: Call, reading: Reading | None, shape: Sequence[int]) -> Places:
        places: Places = {}
        have = reading.places if reading is not None else {}
        if call.name in FRESH:
            where = self.frames[-1][0] if self.frames else "model"
            for dim in range(2, len(shape)):
                if shape[dim] > 1 and not any(a.dim == dim for a in have.values()):
                    places[f"{where}.{dim - 2}"] = whole_axis(dim, shape[dim])
        if call.name in _VIEWS and reading is not None:
            for dim, size in enumerate(shape):
                inside = {
                    n: a
                    for n, a in have.items()
                    if a.dim == dim
                    and a.span == 1
                    and n not in self.parts
                    and n not in self.features
                }
                if any(is_whole(a, shape) for a in have.values() if a.dim == dim):
                    continue
                order = sorted(inside, key=lambda n: -inside[n].inner)
                if len(order) > 1 and math.prod(inside[n].length for n in order) == size:
                    name = _merged(order)
                    self.parts[name] = tuple(order)
                    places[name] = whole_axis(dim, size)
            places |= self._divided(call, shape, have)
        if len(self.calls) in self.columns:
            column = self.columns[len(self.calls)]
            places[column.axis] = column.place(len(shape) - 1)
        for name, axis in places.items():
            self.lengths[name] = axis.length
        return places

    def _divided(self, call: Call, view: Sequence[int], have: Places) -> Places:
        """Axes that a view makes of one dimension, such as heads.

        Known by length and position, so that the heads of queries, keys and values are one axis.
        """
        places: Places = {}
        shape, value = call.shapes[0], getattr(call.tensors[0], "value", -1)
        for source, dims in divided(shape, view):
            for dim in dims:
                name = f"{dim - dims.stop}:{view[dim]}"
                inside = any(a.dim <= dim < a.dim + a.span for a in have.values())
                if view[dim] > 1 and name not in have and not inside:
                    places[name] = whole_axis(dim, view[dim])
                    self.features.add(name)
                    if source == len(shape) - 1:
                        outer = math.prod(view[dims.start : dim])
                        inner = math.prod(view[dim + 1 : dims.stop])
                        self.splits.setdefault(value, {})[name] = (outer, view[dim], inner)
        return places

    def rename(self, new: Mapping[str, str]) -> None:
        """Give axes other names."""
        self.calls = [
            replace(
                c,
                mixed=_renamed(c.mixed, new),
                rounds=_renamed(c.rounds, new),
                fresh=tuple((new.get(n, n), d) for n, d in c.fresh),
            )
            for c in self.calls
        ]
        self.values = {
            v: Value(x.bytes, _renamed(x.axes, new)) for v, x in self.values.items()
        }
        self.lengths = {new.get(n, n): length for n, length in self.lengths.items()}
        self.parts = {new.get(n, n): parts for n, parts in self.parts.items()}
        self.inputs = [(a, d, new.get(n, n)) for a, d, n in self.inputs]
        self.features = set(_renamed(frozenset(self.features), new))

    # -- what a planner asks -----------------------------------------------------------------

    def attended(self) -> dict[str, frozenset[int]]:
        """The axes that calls attend over, with those calls."""
        found: dict[str, set[int]] = {}
        for number, call in enumerate(self.calls):
            if call.function in _ATTENDS:
                for name in call.mixed:
                    found.setdefault(name, set()).add(number)
        return {name: frozenset(calls) for name, calls in found.items()}

    def led(self) -> dict[str, frozenset[int]]:
        """As :meth:`attended`, but only axes that a call's first operand has.

        Those are its queries' axes, without the ones that a bias brings to the same place.
        """
        return {
            name: frozenset(
                n for n in calls if name in self.values[self.calls[n].inputs[0]].axes
            )
            for name, calls in self.attended().items()
        }

    def candidates(self) -> list[str]:
        """Axes worth sharding: attended over somewhere, and carried where another one is.

        Of a merged axis and its parts that are always mixed together only the merged one counts.
        """
        attended = self.attended()
        carried = set()
        for number in set().union(*attended.values()) if attended else ():
            carried |= {a for a in self.carried(number) - self.features if a in attended}
        return sorted(self.largest(carried), key=lambda n: min(attended[n]))

    def carried(self, number: int) -> frozenset[str]:
        """The axes that a call carries from its inputs."""
        call = self.calls[number]
        axes = frozenset[str]().union(*(self.values[v].axes for v in call.inputs))
        return axes - call.mixed

    def heads(self, numbers: Iterable[int]) -> frozenset[str]:
        """Features that calls which attend carry from their first operand, the queries."""
        found: set[str] = set()
        for number in numbers:
            call = self.calls[number]
            if call.function in _ATTENDS and call.inputs:
                found |= self.values[call.inputs[0]].axes & self.features - call.mixed
        return frozenset(found)

    def largest(self, axes: Iterable[str]) -> set[str]:
        """Those of the axes that are not part of a merged one and attended over only with it."""
        attended, found = self.attended(), set(axes)
        for name, parts in self.parts.items():
            if name in found:
                found -= {p for p in parts if attended.get(p, frozenset()) <= attended[name]}
        return found


def traced(
    model: nn.Module, sample: Mapping[str, Any], columns: Mapping[int, Column] | None = None
) -> Trace:
    """Run ``model(**sample)`` on shapes only and record it.

    ``columns`` are axes to follow from the outputs of linear layers, by number of call.

    Raises:
        PlanError: the model computes sizes from data, or the sample does not fit it.
    """
    trace = Trace(columns=columns or {})
    run = Run("", 1, 0, {}, trace)
    handles = []
    for path, module in model.named_modules():
        if path:
            handles += _watch(path, module, run, trace)
    try:
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
            arguments = {}
            for name, x in sample.items():
                fake = _fake(x, mode)
                arguments[name] = _followed(name, fake, run, trace) if _is(fake) else fake
            output = model(**arguments)
            found = []
            for x in leaves(output):
                if isinstance(x, Sharded):
                    found.append(x.value)
                    trace.add(x)
            trace.results = tuple(found)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        where = trace.frames[-1][0] if trace.frames else type(model).__name__
        raise PlanError(
            f"{where or type(model).__name__}: sizes or control flow depend on data "
            f"({error.func}), so no plan can be made ahead; parallelize the parts before and after"
        ) from error
    except (UnsupportedOperatorException, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, PlanError):
            raise
        raise PlanError(f"the model does not run on the sample: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    trace.calls_of = dict(run.calls)
    return trace


def bound(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call of a model by name."""
    signature = inspect.signature(model.forward)
    found = dict(signature.bind(*args, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found.update(found.pop(name, {}))
        elif parameter.kind is inspect.Parameter.VAR_POSITIONAL and found.get(name):
            raise PlanError("a model with *args: give the sample by keyword")
        elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            found.pop(name, None)
    return found


def leaves(x: Any) -> Iterator[Any]:
    """Tensors inside lists, tuples and mappings (model outputs are mappings)."""
    if isinstance(x, Mapping):
        for y in x.values():
            yield from leaves(y)
    elif isinstance(x, (list, tuple)):
        for y in x:
            yield from leaves(y)
    else:
        yield x


def first_sharded(args: Any, kwargs: Mapping[str, Any]) -> Sharded | None:
    """A sharded tensor among the arguments of a module."""
    for x in (*args, *kwargs.values()):
        if isinstance(x, Sharded):
            return x
        if type(x) in (list, tuple):
            for y in x:
                if isinstance(y, Sharded):
                    return y
    return None


def _is(x: Any) -> bool:
    return isinstance(x, Tensor) and x.ndim > 0


def _fake(x: Any, mode: FakeTensorMode) -> Any:
    if isinstance(x, Tensor):
        return mode.from_tensor(x.detach())
    if type(x) in (list, tuple):
        return type(x)([_fake(y, mode) for y in x])
    return x


def _followed(name: str, x: Tensor, run: Run, trace: Trace) -> Any:
    places = {}
    for dim, size in enumerate(x.shape):
        if size > 1:
            axis = f"{name}.{dim}"
            places[axis] = whole_axis(dim, size)
            trace.lengths[axis] = size
            trace.inputs.append((name, dim, axis))
    wrapped = run.wrap(x, x.shape, places, None)
    trace.add(wrapped)
    trace.given[wrapped.value] = name
    return wrapped


def _watch(path: str, module: nn.Module, run: Run, trace: Trace) -> list[Any]:
    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if first_sharded(args, kwargs) is not None:
            run.enter(path, 1 << 30)
            trace.frames.append((path, run.frames[-1][1]))

    def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        if trace.frames and trace.frames[-1][0] == path:
            trace.frames.pop()
            run.leave()

    return [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, with_kwargs=True),
    ]


def _flops(call: Call, outputs: Sequence[Sharded]) -> float:
    """Multiplications and additions of a call, roughly."""
    made = sum(x.numel() for x in outputs)
    shapes = call.shapes
    if call.name == "linear":
        return 2.0 * made * shapes[0][-1]
    if call.name in ("matmul", "bmm", "__matmul__"):
        return 2.0 * made * shapes[0][-1]
    if call.name == "scaled_dot_product_attention":
        query, key = shapes[0], shapes[1]
        return 4.0 * math.prod(query) * key[-2]
    if call.name == "multi_head_attention_forward":
        return made * (8.0 * shapes[0][-1] + 4.0 * shapes[1][0])
    if call.name == "einsum":
        return 0.0 if len(shapes) == 1 else 2.0 * max(math.prod(s) for s in shapes) * shapes[0][-1]
    if call.name in FRESH and len(shapes) > 1:
        return 2.0 * made * math.prod(shapes[1][1:])
    # Where there is no arithmetic, being replicated costs nothing worth a switch.
    return float(made) if call.name in _ARITHMETIC else 0.0
