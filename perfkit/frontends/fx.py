"""Where a sequence axis lies in a tensor, and where an operator's output finds it again.

A model merges axes (``(b t) s c``), splits them again, permutes them, and puts a class token in
front of them. An :class:`Axis` describes any such place: its index is the quasi-affine function
``floor((e - start) / inner) mod length`` of an element's index ``e``, along one dimension or along
several neighbouring ones taken together. What an operator reads of an operand is its access
relation; those of this module relate each dimension of the output to at most one dimension of the
operand and read every other dimension whole (:class:`Access`). An axis can be sharded through an
operator exactly when the relation is the identity on it.

:meth:`Axis.relation`, :func:`view_relation` and :meth:`Access.relation` define these as isl maps;
the functions beside them are their closed forms, which also work on symbolic sizes, and which the
tests prove equal to the definitions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import islpy as isl


class Axis(NamedTuple):
    """The place of an axis of ``length`` in a tensor.

    It lies in dimension ``dim``, or in ``span`` dimensions from there on taken together in
    row-major order. Counted from ``start``, that index is ``(o * length + axis) * inner + i`` with
    ``o < outer`` and ``i < inner``; before and after lie elements that do not belong to the axis
    (a class token). With a span of more than one there are none.
    """

    dim: int
    outer: int
    length: int
    inner: int
    start: int = 0
    span: int = 1

    @property
    def extent(self) -> int:
        """Indices that belong to the axis."""
        return self.outer * self.length * self.inner

    def moved(self, dim: int) -> Axis:
        return Axis(dim, self.outer, self.length, self.inner, self.start, self.span)

    def of_length(self, length: int) -> Axis:
        """The place of a part of the axis, in the tensor that holds only that part."""
        return Axis(self.dim, self.outer, length, self.inner, self.start, self.span)

    def relation(self, ctx: isl.Context, shape: Sequence[int]) -> isl.Map:
        """``[element] -> [index on the axis]`` for a tensor of ``shape``: the definition."""
        names = [f"e{d}" for d in range(len(shape))]
        index = "0"
        for d in range(self.dim, self.dim + self.span):
            index = f"({index}) * {shape[d]} + e{d}"
        bounds = [f"0 <= e{d} < {n}" for d, n in enumerate(shape)]
        at = f"(({index}) - {self.start})"
        bounds.append(f"0 <= {at} < {self.extent}")
        where = " and ".join(bounds)
        value = f"floor({at} / {self.inner}) mod {self.length}"
        return isl.Map.read_from_str(ctx, f"{{ [{', '.join(names)}] -> [{value}] : {where} }}")


def is_whole(axis: Axis, shape: Sequence[int]) -> bool:
    """Whether a dimension of the tensor is the axis and nothing else."""
    return axis.span == 1 and axis.length == shape[axis.dim]


def whole(dim: int, length: int) -> Axis:
    """The axis that a dimension is."""
    return Axis(dim, 1, length, 1)


# -- views ------------------------------------------------------------------------------------


def view_relation(ctx: isl.Context, shape: Sequence[int], view: Sequence[int]) -> isl.Map:
    """``[element of the tensor] -> [element of the view]``: equal positions in row-major order."""

    def linear(letter: str, sizes: Sequence[int]) -> tuple[str, str, str]:
        names = ", ".join(f"{letter}{d}" for d in range(len(sizes)))
        index = "0"
        for d, n in enumerate(sizes):
            index = f"({index}) * {n} + {letter}{d}"
        limits = " and ".join(f"0 <= {letter}{d} < {n}" for d, n in enumerate(sizes))
        return names, index, limits

    left, here, inside = linear("e", shape)
    right, there, within = linear("v", view)
    text = f"{{ [{left}] -> [{right}] : {here} = {there} and {inside} and {within} }}"
    return isl.Map.read_from_str(ctx, text)


def through_view(axis: Axis, shape: Sequence[int], view: Sequence[int]) -> Axis | None:
    """Where a view of ``shape`` as ``view`` (row-major order) has the axis; None: nowhere.

    The fewest dimensions that hold it whole are taken.
    """
    after = math.prod(shape[axis.dim + axis.span :])
    if axis.span == 1 and shape[axis.dim] != axis.extent:
        return _kept_dimension(axis, shape, view, after)
    inner = axis.inner * after
    block = inner * axis.length
    for span in range(1, len(view) + 1):
        stride = 1
        for last in range(len(view) - 1, span - 2, -1):
            first = last - span + 1
            size = math.prod(view[first : last + 1])
            fits = inner % stride == 0 and inner < stride * size and (stride * size) % block == 0
            # Size-1 dimensions at either end would widen a span for nothing.
            if fits and (span == 1 or (view[first] != 1 and view[last] != 1)):
                outer = (stride * size) // block
                return Axis(first, outer, axis.length, inner // stride, 0, span)
            stride *= view[last]
    return None


def _kept_dimension(
    axis: Axis, shape: Sequence[int], view: Sequence[int], after: int
) -> Axis | None:
    """A dimension with more than the axis in it moves only as it is."""
    stride = 1
    for d in range(len(view) - 1, -1, -1):
        if stride == after and view[d] == shape[axis.dim]:
            return axis.moved(d)
        stride *= view[d]
    return None


def divided(shape: Sequence[int], view: Sequence[int]) -> list[tuple[int, range]]:
    """Dimensions of a tensor that a view divides up, and the dimensions that they become."""
    found = []
    here = there = 0
    while here < len(shape) and there < len(view):
        first, last = here, there
        left, right = shape[here], view[there]
        here, there = here + 1, there + 1
        while left != right and (here < len(shape) if left < right else there < len(view)):
            if left < right:
                left, here = left * shape[here], here + 1
            else:
                right, there = right * view[there], there + 1
        if here - first == 1 and there - last > 1 and left == right:
            found.append((first, range(last, there)))
    return found


def fused(shape: Sequence[int], axis: Axis, length: int) -> list[int]:
    """The shape that stores ``length`` indices of the axis, the dimensions of a span as one."""
    size = math.prod(shape[axis.dim : axis.dim + axis.span])
    size = size - axis.extent + axis.outer * length * axis.inner
    return [*shape[: axis.dim], size, *shape[axis.dim + axis.span :]]


def unfolded(shape: Sequence[int], axis: Axis, length: int) -> list[int]:
    """The shape in which ``length`` indices of the axis are dimension ``axis.dim + 1``.

    Nothing but the axis may lie in its dimensions.
    """
    before, rest = shape[: axis.dim], shape[axis.dim + axis.span :]
    return [*before, axis.outer, length, axis.inner, *rest]


# -- accesses ---------------------------------------------------------------------------------


class Access(NamedTuple):
    """What an output element reads of an operand.

    ``dims[d]`` is the operand's dimension that is read at the output's index ``d`` only, or None.
    A dimension of the operand that does not occur is read whole. A dimension of size 1 stands for
    every index of the output (broadcasting).
    """

    dims: tuple[int | None, ...]

    def relation(self, ctx: isl.Context, shape: Sequence[int], operand: Sequence[int]) -> isl.Map:
        """``[output element] -> [operand elements read]``: the definition."""
        left = ", ".join(f"o{d}" for d in range(len(shape)))
        right = ", ".join(f"i{k}" for k in range(len(operand)))
        limits = [f"0 <= o{d} < {n}" for d, n in enumerate(shape)]
        limits += [f"0 <= i{k} < {n}" for k, n in enumerate(operand)]
        limits += [
            f"i{k} = o{d}"
            for d, k in enumerate(self.dims)
            if k is not None and operand[k] == shape[d]
        ]
        return isl.Map.read_from_str(
            ctx, f"{{ [{left}] -> [{right}] : {' and '.join(limits) or 'true'} }}"
        )

    def carry(self, axis: Axis) -> Axis | None:
        """Where the output has an axis of the operand; None where it is read whole."""
        places = [d for d, k in enumerate(self.dims) if k == axis.dim]
        if not places:
            return None
        first = places[0]
        wanted = tuple(range(axis.dim, axis.dim + axis.span))
        if self.dims[first : first + axis.span] != wanted:
            return None
        return axis.moved(first)

    def back(self, axis: Axis) -> Axis | None:
        """Where the operand has an axis of the output; None where it lacks it."""
        found = self.dims[axis.dim : axis.dim + axis.span]
        if found[0] is None or found != tuple(range(found[0], found[0] + axis.span)):
            return None
        return axis.moved(found[0])


def aligned(ndim: int, operand: int) -> Access:
    """Broadcasting: dimensions correspond from the last one on."""
    shift = ndim - operand
    return Access(tuple(d - shift if d >= shift else None for d in range(ndim)))


def leading(ndim: int, count: int, operand: int) -> Access:
    """The first ``count`` dimensions correspond; the others are read whole."""
    return Access(tuple(d if d < min(count, operand) else None for d in range(ndim)))


def nothing(ndim: int) -> Access:
    """Every element of the output may read the whole operand."""
    return Access((None,) * ndim)
