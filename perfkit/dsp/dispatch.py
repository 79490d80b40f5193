"""Runs each torch function of a parallel region on the local parts of its tensors.

The rules of :mod:`perfkit.frontends.fx_access` say which axes a call carries and which it mixes.
A call runs with one axis held (or none): the one that the plan names for this place in the model,
else the one its inputs come with. Inputs in another layout are converted first. An axis that the
call mixes cannot be held; then, and for functions without a rule, the call runs on whole tensors.

Places in the model are counted per module, so recomputing a checkpointed block finds its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from perfkit.comm.group import GroupLike
from perfkit.comm.shards import shard_length
from perfkit.dsp import randomness
from perfkit.dsp.sharded import Places, Sharded, converted, part_of, whole
from perfkit.dsp.widths import Column, column_linear, row_linear
from perfkit.frontends import fx_access, fx_views
from perfkit.frontends.fx import Access, Axis
from perfkit.frontends.fx import whole as whole_axis
from perfkit.frontends.fx_call import Call, Reading, names

KEEP = "(as it comes)"


Key = tuple[str, int, int, int]


class Site(NamedTuple):
    """What the plan says about one call: its layout, and axes that its result brings in.

    ``function`` guards against a model that took another way than the sample did; ``fresh`` maps
    names of axes to dimensions of the result. A linear layer with a ``column`` computes a part of
    its outputs; one with ``to`` takes such a part, and its sum is scattered along that axis.
    """

    function: str
    held: str | None = KEEP
    fresh: tuple[tuple[str, int], ...] = ()
    column: Column | None = None
    to: str | None = None


SiteKey = tuple[str, int, int]
"""(module, which call of it, which torch function in it)."""


class Watcher(Protocol):
    """Records the calls of a sample run (:mod:`perfkit.dsp.trace`)."""

    def note(self, call: Call, reading: Reading | None, outputs: Sequence[Sharded]) -> None: ...

    def fresh(self, call: Call, reading: Reading | None, shape: Sequence[int]) -> Places: ...


class Clock(Protocol):
    """Times changes of layout (:mod:`perfkit.dsp.report`)."""

    def now(self) -> float: ...

    def add(self, label: str, seconds: float) -> None: ...


class Run:
    """One forward pass through a parallelized module.

    ``along`` lets attention keep the axis that it mixes, as ring attention and the fused
    kernels do.
    """

    def __init__(
        self,
        group: GroupLike,
        ranks: int,
        rank: int,
        sites: Mapping[SiteKey, Site],
        watcher: Watcher | None = None,
        clock: Clock | None = None,
        along: Callable[..., Tensor] | None = None,
    ) -> None:
        self.clock = clock
        self.along = along
        self.group, self.ranks, self.rank = group, ranks, rank
        self.sites = sites
        self.watcher = watcher
        self.frames: list[list[Any]] = [["", 0, 0, 1, 0]]
        self.over = False
        self.strayed = False
        self.kept: dict[Key, Tensor] = {}
        self.marks: dict[tuple[Any, ...], tuple[str, int, int, int]] = {}
        self.calls: dict[str, int] = {}
        self.values = 0

    # -- where in the model ------------------------------------------------------------------

    def enter(self, module: str, most: int) -> None:
        """A module's forward begins; ``most`` is how often the sample called it."""
        number = self.calls.get(module, 0)
        self.calls[module] = number + 1
        self.frames.append([module, min(number, most - 1), 0, most, 0])

    def leave(self) -> None:
        if len(self.frames) > 1:
            self.frames.pop()

    # -- checkpointing -----------------------------------------------------------------------
    #
    # What a checkpointed block received from other ranks is kept when it first runs, for its
    # recomputation in the backward pass not to send it again. Recomputation starts with a call
    # whose inputs are values of the first run: by those the call, and so its place, is known.

    def key(self) -> Key:
        """Which conversion this is: the place in the model, and which one of that call."""
        frame = self.frames[-1]
        frame[4] += 1
        return (frame[0], frame[1], frame[2], frame[4])

    def keep(self, key: Key, local: Tensor) -> None:
        """Keep what a conversion gave, where a checkpoint will run it again."""
        if not self.over and _will_run_again():
            self.kept[key] = local

    def recall(self, key: Key) -> Tensor | None:
        """What the same conversion gave when the model ran."""
        return self.kept.get(key) if self.over else None

    def timed(self, change: str, move: Callable[[str], Tensor]) -> Tensor:
        """What ``move`` gives, its time added to the clock under the label of the change."""
        label = self.stage(change)
        if self.clock is None:
            return move(label)
        start = self.clock.now()
        found = move(label)
        self.clock.add(label, self.clock.now() - start)
        return found

    def stage(self, change: str) -> str:
        """The label of a change of layout in the counters."""
        module = self.frames[-1][0]
        return f"{module}: {change}" if module else change

    def _resume(self, call: Call) -> None:
        """Note the place of a call that will run again, or find it when it does."""
        if not self.over and not _will_run_again():
            return
        frame = self.frames[-1]
        mark = (call.name, *[x.value for x in call.tensors if isinstance(x, Sharded)])
        if not self.over:
            self.marks.setdefault(mark, (frame[0], frame[1], frame[2], frame[3]))
            return
        found = self.marks.get(mark)
        if found is not None and (len(self.frames) == 1 or found[0] == frame[0]):
            frame[:4] = found

    def _site(self, function: str) -> Site:
        frame = self.frames[-1]
        found = self.sites.get((frame[0], frame[1], frame[2]))
        frame[2] += 1
        frame[4] = 0
        if found is None:
            return Site(function)
        if found.function != function:
            self.strayed = True
            return Site(function)
        return found

    # -- calls -------------------------------------------------------------------------------

    def wrap(
        self, local: Tensor, shape: Sequence[int], places: Places, held: str | None
    ) -> Sharded:
        self.values += 1
        return Sharded(local, shape, places, held, self, self.values)

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a torch function gives for arguments of which some are sharded."""
        name = _name_of(func)
        if name == "__get__":
            raise AttributeError("this attribute of a sharded tensor is not supported")
        if name in _PLAIN:
            return func(*[_local(x) for x in args], **kwargs)
        if name == "type_as":
            name, func, args = "to", torch.Tensor.to, (args[0], args[1].dtype)
        if name in _CASTS:  # the tensors of a run are on one device, so only the type counts
            args = (args[0], *map(_type_of, args[1:]))
            kwargs = {k: _type_of(x) for k, x in kwargs.items()}
            if not isinstance(args[0], Sharded):
                return func(*args, **kwargs)
        call = Call(name, args, kwargs, _is_tensor, _places)
        self._resume(call)
        site = self._site(name)
        rule = fx_access.rule_of(name) or fx_views.rule_of(name)
        reading = rule(call) if rule is not None and kwargs.get("out") is None else None
        if name in _IN_PLACE or (name.endswith("_") and not name.endswith("__")):
            return self._in_place(func, call, reading)
        if reading is None:
            result = self._on_whole(func, call, site)
        elif site.column is not None:
            result = column_linear(call, reading, site.column, self)
        elif site.to is not None and call.tensors[0].held not in (None, site.to):
            result = row_linear(call, reading, site.to, self)
        else:
            held = self._choose(call, reading, site)
            result = self._on_parts(func, call, reading, held, site)
        if self.watcher is not None:
            found = result if isinstance(result, (tuple, list)) else [result]
            outputs = [x for x in found if isinstance(x, Sharded)]
            self.watcher.note(call, reading, outputs)
        return result

    def _choose(self, call: Call, reading: Reading, site: Site) -> str | None:
        if site.held is None:
            return None
        if site.held != KEEP and self._possible(call, reading, site.held):
            return site.held
        for x in call.tensors:
            held = x.held if isinstance(x, Sharded) else None
            if held is not None and self._possible(call, reading, held):
                return held
        return None

    def _possible(self, call: Call, reading: Reading, name: str) -> bool:
        """Whether a call can run on every rank's part; convolutions refuse empty dimensions."""
        axis = reading.places.get(name)
        empty = axis is not None and axis.length < self.ranks and axis.dim >= 2
        if name in reading.mixed:
            return self.along is not None and goes_round(call, name)
        return holdable(call, reading, name) and not (empty and call.name in fx_access.FRESH)

    def _on_whole(self, func: Any, call: Call, site: Site) -> Any:
        args, kwargs = call.rebuilt([whole(x) for x in call.tensors])
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and (site.fresh or self.watcher is not None):
            places = self._fresh(call, None, site, result.shape)
            if places:
                return self.wrap(result, result.shape, places, None)
        return result

    def _on_parts(
        self, func: Any, call: Call, reading: Reading, held: str | None, site: Site
    ) -> Any:
        axis = reading.places.get(held) if held is not None else None
        locals_ = [
            _operand(x, access, held, axis, self)
            for x, access in zip(call.tensors, reading.accesses, strict=True)
        ]
        if held in reading.mixed and axis is not None:
            result = self._round(call, locals_, axis)
            return self._result(result, call, reading, held, axis, site)
        args, kwargs = call.rebuilt(locals_)
        if held is not None and reading.rewrite is not None:
            length = next(
                _part_length(x.places[held], self)
                for x in call.tensors
                if isinstance(x, Sharded) and held in x.places
            )
            args, kwargs = reading.rewrite(args, kwargs, held, length)
            func = torch.reshape if reading.as_reshape else func
        if held is not None and self.ranks > 1 and randomness.draws(call):
            result = randomness.run(func, call, args, kwargs, self.rank)
        else:
            result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            return self._result(result, call, reading, held, axis, site)
        if isinstance(result, (tuple, list)):
            results = [
                self._result(x, call, reading, held, axis, site) if isinstance(x, Tensor) else x
                for x in result
            ]
            return results if type(result) is list else tuple(results)
        return result

    def _round(self, call: Call, locals_: Sequence[Tensor], axis: Axis) -> Tensor:
        """Attention along the axis held."""
        assert self.along is not None
        q, k, v = locals_
        return self.along(
            q,
            k,
            v,
            self.group,
            size=axis.length,
            causal=bool(call.arg(5, "is_causal", False)),
            scale=call.kwargs.get("scale"),
            stage=self.stage(self.along.__name__.removesuffix("_attention")),
        )

    def _result(
        self,
        local: Tensor,
        call: Call,
        reading: Reading,
        held: str | None,
        axis: Axis | None,
        site: Site,
    ) -> Any:
        shape = list(local.shape)
        if axis is not None:
            if axis.span > 1:
                shape = list(reading.shape or ())
            else:
                missing = axis.length - _part_length(axis, self)
                shape[axis.dim] += axis.outer * missing * axis.inner
        places = reading.places
        if site.fresh or self.watcher is not None:
            places = {**places, **self._fresh(call, reading, site, shape)}
        if not places:
            return local
        return self.wrap(local, shape, places, held if axis is not None else None)

    def _fresh(
        self, call: Call, reading: Reading | None, site: Site, shape: Sequence[int]
    ) -> Places:
        if self.watcher is not None:
            return self.watcher.fresh(call, reading, shape)
        return {name: whole_axis(dim, shape[dim]) for name, dim in site.fresh if dim < len(shape)}

    def _in_place(self, func: Any, call: Call, reading: Reading | None) -> Any:
        """The first argument changes where it is, so it is its layout that counts."""
        target = call.args[0]
        if not isinstance(target, Sharded):
            args, kwargs = call.rebuilt([whole(x) for x in call.tensors])
            if self.watcher is not None:
                self.watcher.note(call, None, [])
            return func(*args, **kwargs)
        held = target.held
        if reading is None or (held is not None and not holdable(call, reading, held)):
            target.local, target.held = whole(target), None
            args, kwargs = call.rebuilt([whole(x) for x in call.tensors])
            func(*args, **kwargs)
        else:
            axis = reading.places.get(held) if held is not None else None
            locals_ = [
                _operand(x, access, held, axis, self)
                for x, access in zip(call.tensors, reading.accesses, strict=True)
            ]
            args, kwargs = call.rebuilt(locals_)
            func(*args, **kwargs)
        target.copies.clear()
        if self.watcher is not None:
            self.watcher.note(call, reading, [target])
        return target


class Sequences(TorchFunctionMode):
    """Lets Dynamo see sharded tensors in tuples (``torch.cat((x, y))``); eager code does."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        for x in args:
            if type(x) is tuple:
                for y in x:
                    if isinstance(y, Sharded):
                        return y.run.call(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


# These look at the element type or the device only.
_PLAIN = names(
    "is_floating_point is_complex element_size get_device is_inference "
    "new_zeros new_ones new_empty new_full new_tensor"
)
_CASTS = names("to")
_IN_PLACE = names("__setitem__ __iadd__ __isub__ __imul__ __itruediv__ __ipow__")


def _will_run_again() -> bool:
    """Whether this is the inside of torch.utils.checkpoint (not the reentrant form)."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def holdable(call: Call, reading: Reading, name: str) -> bool:
    """Whether a call can run on parts of an axis."""
    if name in reading.mixed:
        return False
    before = [places[name] for places in call.places if name in places]
    after = reading.places.get(name)
    spans = any(axis.span > 1 for axis in before) or (after is not None and after.span > 1)
    return not spans or call.name in fx_access.SPANNED


def goes_round(call: Call, name: str) -> bool:
    """Whether ring attention can make a call that mixes an axis: plain attention along it."""
    if call.name != "scaled_dot_product_attention" or len(call.tensors) != 3:
        return False
    query, key, value = call.shapes
    at = len(query) - 2
    same = query[:-1] == key[:-1] == value[:-1]
    along = whole_axis(at, query[at])
    return (
        at > 0
        and same
        and not call.arg(4, "dropout_p", 0.0)
        and all(places.get(name) == along for places in call.places)
    )


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _name_of(func: Any) -> str:
    return str(func.__name__)


def _is_tensor(x: Any) -> bool:
    return isinstance(x, (Sharded, Tensor))


def _places(x: Any) -> Places:
    return x.places if isinstance(x, Sharded) else {}


def _local(x: Any) -> Any:
    return x.local if isinstance(x, Sharded) else x


def _type_of(x: Any) -> Any:
    return x.dtype if isinstance(x, Sharded) else x


def _part_length(axis: Axis, run: Run) -> int:
    return shard_length(axis.length, run.ranks, run.rank)


def _operand(x: Any, access: Access, held: str | None, axis: Axis | None, run: Run) -> Any:
    """The local part of an operand for a call that holds ``held``, at ``axis`` in the result."""
    if isinstance(x, Sharded):
        if held is None:
            return converted(x, None).local
        if held in x.places and (
            axis is None or access.carry(x.places[held]) in (None, axis) or not access.dims
        ):
            return converted(x, held).local
        x = whole(x)
    if axis is None or axis.span > 1 or run.ranks == 1:
        return x
    there = access.back(axis)
    if there is None or there.dim >= x.ndim or x.shape[there.dim] == 1:
        return x
    return part_of(x, there, run)
