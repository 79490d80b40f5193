"""Rules of functions that reindex: views, slices, concatenation, repetition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from perfkit.frontends.fx import Access, Axis, fused, through_view
from perfkit.frontends.fx_access import Rule
from perfkit.frontends.fx_call import Arguments, Call, Places, Reading, read


def _reindexed(call: Call, places: Places, rewrite: Any, lost: Sequence[str] = ()) -> Reading:
    """A reading of one tensor; axes that are neither kept nor ``lost`` harmlessly are mixed."""
    mixed = frozenset(call.places[0]) - set(places) - set(lost)
    return Reading(places, mixed, (Access(()),), rewrite)


# -- views ----------------------------------------------------------------------------------


def _sizes(call: Call) -> list[int] | None:
    """The sizes that a reshape or view asks for, -1 worked out."""
    given: Any = call.kwargs.get("shape", call.kwargs.get("size", call.args[1:]))
    if len(given) == 1 and isinstance(given[0], (tuple, list)):
        given = given[0]
    sizes = list(given)
    if not all(isinstance(n, int) for n in sizes):
        return None
    total = math.prod(call.shapes[0])
    if -1 in sizes:
        at = sizes.index(-1)
        rest = math.prod(n for d, n in enumerate(sizes) if d != at)
        sizes[at] = total // rest if rest else 0
    return sizes


def _viewed(call: Call, view: list[int]) -> Reading:
    shape = call.shapes[0]
    places = {}
    for name, axis in call.places[0].items():
        found = through_view(axis, shape, view)
        if found is not None:
            places[name] = found

    def rewrite(args: tuple[Any, ...], _: dict[str, Any], name: str, length: int) -> Arguments:
        sizes = fused(view, places[name], length) if name else view
        return (args[0], sizes), {}

    return _reindexed(call, places, rewrite)._replace(shape=tuple(view), as_reshape=True)


def reshape(call: Call) -> Reading | None:
    view = _sizes(call)
    return None if view is None else _viewed(call, view)


def flatten(call: Call) -> Reading:
    shape = call.shapes[0]
    first = call.arg(1, "start_dim", 0) % len(shape)
    last = call.arg(2, "end_dim", -1) % len(shape)
    return _viewed(call, [*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]])


def unflatten(call: Call) -> Reading | None:
    shape, dim = call.shapes[0], call.dim(1, "dim")
    sizes = call.arg(2, "sizes")
    if dim is None or not isinstance(sizes, (tuple, list)):
        return None
    parts = list(sizes)
    if -1 in parts:
        parts[parts.index(-1)] = shape[dim] // -math.prod(parts)
    return _viewed(call, [*shape[:dim], *parts, *shape[dim + 1 :]])


def squeeze(call: Call) -> Reading | None:
    dim, shape = call.dim(1, "dim"), call.shapes[0]
    if dim is None:
        return None
    return _viewed(call, [n for d, n in enumerate(shape) if d != dim or n != 1])


# -- slices ---------------------------------------------------------------------------------


def _all_of(axis: Axis, shape: Sequence[int]) -> bool:
    return axis.span == 1 and axis.extent == shape[axis.dim]


def _cut(axis: Axis, start: int, stop: int) -> Axis | None:
    """The axis in a slice of its dimension that holds all of it."""
    if axis.span == 1 and start <= axis.start and axis.start + axis.extent <= stop:
        return Axis(axis.dim, axis.outer, axis.length, axis.inner, axis.start - start)
    return None


def _beside(axis: Axis, start: int, stop: int) -> bool:
    """Whether a slice of an axis's dimension has nothing of it."""
    return axis.span == 1 and (stop <= axis.start or start >= axis.start + axis.extent)


def _shift(axis: Axis, position: int, length: int) -> int:
    """A position outside an axis, or at its ends, in a tensor that holds a part of it."""
    if position <= axis.start:
        return position
    return position - axis.outer * (axis.length - length) * axis.inner


def subscript(call: Call) -> Reading | None:
    """x[...] with integers, slices of step 1, None and an ellipsis."""
    shape, ndim = call.shapes[0], len(call.shapes[0])
    items = call.args[1] if type(call.args[1]) is tuple else (call.args[1],)
    if len(call.shapes) != 1 or any(
        isinstance(i, bool) or not (i is None or i is Ellipsis or isinstance(i, (int, slice)))
        for i in items
    ):
        return None
    used = sum(i is not None and i is not Ellipsis for i in items)
    if Ellipsis not in items:
        items = (*items, Ellipsis)
    full: list[Any] = []
    for i in items:
        full += [slice(None)] * (ndim - used) if i is Ellipsis else [i]
    order: list[int | None] = []
    cuts: dict[int, tuple[int, int]] = {}
    at = 0
    for item in full:
        if item is None:
            order.append(None)
            continue
        size = shape[at]
        if isinstance(item, slice):
            if item.step not in (None, 1):
                cuts[at] = (-1, -1)
            elif not (item.start is None and item.stop is None):
                start, stop, _ = item.indices(size)
                cuts[at] = (start, max(start, stop))
            order.append(at)
        else:
            index = item + size if item < 0 else item
            cuts[at] = (index, index + 1)
        at += 1
    return _sliced(call, tuple(order), cuts, _subscript_rewrite(full, shape))


def _subscript_rewrite(full: list[Any], shape: Sequence[int]) -> Any:
    def change(axis: Axis, length: int) -> Any:
        items: list[Any] = []
        at = 0
        for item in full:
            if item is not None and at == axis.dim:
                if isinstance(item, slice) and not (item.start is None and item.stop is None):
                    start, stop, _ = item.indices(shape[at])
                    item = slice(_shift(axis, start, length), _shift(axis, stop, length))
                elif isinstance(item, int):
                    item = _shift(axis, item + shape[at] if item < 0 else item, length)
            items.append(item)
            at += item is not None
        return tuple(items)

    def rewrite(axis: Axis, args: tuple[Any, ...], length: int) -> Arguments:
        return (args[0], change(axis, length)), {}

    return rewrite


def _sliced(
    call: Call, order: tuple[int | None, ...], cuts: dict[int, tuple[int, int]], change: Any
) -> Reading:
    access = Access(order)
    places: Places = {}
    lost: list[str] = []
    for name, axis in call.places[0].items():
        here: Axis | None = axis
        cut = [d for d in range(axis.dim, axis.dim + axis.span) if d in cuts]
        if cut:
            start, stop = cuts[axis.dim] if axis.span == 1 else (-1, -1)
            if start >= 0 and _beside(axis, start, stop):
                lost.append(name)
                continue
            here = None if start < 0 else _cut(axis, start, stop)
        found = None if here is None else access.carry(here)
        if found is not None:
            places[name] = found

    def rewrite(args: tuple[Any, ...], kwargs: dict[str, Any], name: str, n: int) -> Arguments:
        if not name:
            return args, kwargs
        return change(call.places[0][name], args, n)

    return _reindexed(call, places, rewrite, lost)


def narrow(call: Call) -> Reading | None:
    dim, start, length = call.dim(1, "dim"), call.arg(2, "start"), call.arg(3, "length")
    if dim is None or not isinstance(start, int):
        return None
    items: list[Any] = [slice(None)] * len(call.shapes[0])
    items[dim] = slice(start, start + length)
    full = list(items)
    order = tuple(range(len(full)))
    cuts = {dim: (start, start + length)}
    inner = _sliced(call, order, cuts, lambda axis, args, n: (args, {}))

    def rewrite(args: tuple[Any, ...], kwargs: dict[str, Any], name: str, n: int) -> Arguments:
        first, last = start, start + length
        if name and call.places[0][name].dim == dim:
            axis = call.places[0][name]
            first, last = _shift(axis, first, n), _shift(axis, last, n)
        return (args[0], dim, first, last - first), {}

    return inner._replace(rewrite=rewrite)


def select(call: Call) -> Reading | None:
    dim, index = call.dim(1, "dim"), call.arg(2, "index")
    if dim is None or not isinstance(index, int):
        return None
    items: list[Any] = [slice(None)] * len(call.shapes[0])
    items[dim] = index
    same = Call("__getitem__", (call.args[0], tuple(items)), {}, call.is_tensor, lambda _: {})
    same.places = call.places
    reading = subscript(same)
    if reading is None or reading.rewrite is None:
        return None
    inner = reading.rewrite

    def rewrite(args: tuple[Any, ...], kwargs: dict[str, Any], name: str, n: int) -> Arguments:
        (x, changed), _ = inner((args[0], tuple(items)), {}, name, n)
        return (x, dim, changed[dim]), {}

    return reading._replace(rewrite=rewrite)


# -- concatenation and repetition -----------------------------------------------------------


def concatenation(call: Call) -> Reading | None:
    """cat: other dimensions correspond; an axis in one operand only keeps its elements there."""
    ndim = len(call.shapes[0])
    dim = call.arg(1, "dim", call.kwargs.get("axis", 0)) % ndim
    if any(len(shape) != ndim for shape in call.shapes):
        return None
    accesses = [Access(tuple(None if d == dim else d for d in range(ndim)))] * len(call.shapes)
    outside = read(call, accesses)
    places, mixed = dict(outside.places), set(outside.mixed)
    offset = 0
    for shape, held in zip(call.shapes, call.places, strict=True):
        for name, axis in held.items():
            alone = sum(name in other for other in call.places) == 1
            if axis.dim == dim and axis.span == 1 and alone:
                places[name] = Axis(
                    dim, axis.outer, axis.length, axis.inner, axis.start + offset
                )
                mixed.discard(name)
        offset += shape[dim]
    return Reading(places, frozenset(mixed), tuple(accesses))


def repeat(call: Call) -> Reading | None:
    """x.repeat(times...): an axis that fills its dimension is found again in every copy."""
    given: Any = call.kwargs.get("repeats", call.args[1:])
    times = list(given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given)
    shape = call.shapes[0]
    shift = len(times) - len(shape)
    places = {}
    for name, axis in call.places[0].items():
        many = times[axis.dim + shift]
        if axis.span == 1 and (many == 1 or _all_of(axis, shape)):
            outer = axis.outer * many
            places[name] = Axis(axis.dim + shift, outer, axis.length, axis.inner, axis.start)
    return _reindexed(call, places, None)


def repeat_interleave(call: Call) -> Reading | None:
    many, dim = call.arg(1, "repeats"), call.dim(2, "dim")
    if dim is None or not isinstance(many, int):
        return None
    shape = call.shapes[0]
    places = {}
    for name, axis in call.places[0].items():
        if axis.dim > dim or axis.dim + axis.span <= dim or many == 1:
            places[name] = axis
        elif _all_of(axis, shape):
            places[name] = Axis(dim, axis.outer, axis.length, axis.inner * many)

    def rewrite(args: tuple[Any, ...], kwargs: dict[str, Any], name: str, n: int) -> Arguments:
        return (args[0], many), {"dim": dim}  # output_size, if given, is that of the whole

    return _reindexed(call, places, rewrite)


def expand(call: Call) -> Reading | None:
    given: Any = call.kwargs.get("size", call.args[1:])
    sizes = list(given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given)
    shift = len(sizes) - len(call.shapes[0])
    places = {name: axis.moved(axis.dim + shift) for name, axis in call.places[0].items()}
    if any(axis.span > 1 for axis in places.values()):
        return None

    def rewrite(args: tuple[Any, ...], kwargs: dict[str, Any], name: str, n: int) -> Arguments:
        local = list(sizes)
        if name:
            local[places[name].dim] = -1
        return (args[0], *local), {}

    return _reindexed(call, places, rewrite)


_TABLE: dict[str, Rule] = {
    **dict.fromkeys(("reshape", "view"), reshape),
    "flatten": flatten,
    "unflatten": unflatten,
    "squeeze": squeeze,
    "__getitem__": subscript,
    "narrow": narrow,
    "select": select,
    **dict.fromkeys(("cat", "concat", "concatenate"), concatenation),
    "repeat": repeat,
    "repeat_interleave": repeat_interleave,
    "expand": expand,
}


def rule_of(name: str) -> Rule | None:
    """The rule of a function that reindexes, None where there is none."""
    return _TABLE.get(name)
