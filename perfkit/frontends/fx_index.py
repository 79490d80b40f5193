"""aten operators that only move indices: views, slices, concatenation, padding, constants.

A :class:`Lazy` value knows its sizes and the expression of any of its elements; these operators
make another one without computing anything. Where an element comes from one of several places
(``cat``, ``pad``, ``slice_scatter``) the expression is a select on an affine condition, which
:mod:`perfkit.frontends.build` turns into separate domains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd, prod
from typing import Any

from perfkit.frontends.fx_graph import Shape
from perfkit.frontends.fx_pointwise import Unsuited, convert
from perfkit.ir.affine import Affine
from perfkit.ir.expr import AffineValue, Binary, Cast, Compare, CompareOp, Const, Expr, Select

Index = tuple[Affine, ...]
ZERO = Affine.constant(0)
ONE = Affine.constant(1)


@dataclass(frozen=True, slots=True)
class Lazy:
    """A tensor by the expression of its elements.

    ``computed`` is False while an element is only a load or a constant from somewhere.
    """

    shape: Shape
    dtype: str
    at: Callable[[Index], Expr]
    computed: bool = False

    @property
    def rank(self) -> int:
        return len(self.shape)

    def moved(self, shape: Shape, where: Callable[[Index], Index]) -> Lazy:
        """The tensor of ``shape`` whose element ``i`` is this one's element ``where(i)``."""
        return Lazy(shape, self.dtype, lambda index: self.at(where(index)), self.computed)


def affine(value: Any) -> Affine:
    if isinstance(value, Affine):
        return value
    if isinstance(value, int):
        return Affine.constant(value)
    raise Unsuited(f"a size or index {value!r}")


def position(value: Affine) -> Expr:
    """An index as a value."""
    return Const("int64", value.const) if value.is_constant else AffineValue("int64", value)


def holds(op: CompareOp, left: Affine, right: Affine) -> Expr:
    return Compare("bool", op, position(left), position(right))


def both(left: Expr, right: Expr) -> Expr:
    return Binary("bool", "land", left, right)


def dimension(value: Any, rank: int) -> int:
    if not isinstance(value, int):
        raise Unsuited(f"a dimension {value!r}")
    return value + rank if value < 0 else value


# -- views ------------------------------------------------------------------------------------


def view(x: Lazy, shape: Shape) -> Lazy:
    """Any change of shape that keeps the row-major order of the elements."""
    groups = _groups(x.shape, shape)

    def where(index: Index) -> Index:
        result = [ZERO] * x.rank
        for old, new in groups:
            linear = ZERO
            for d in new:
                linear = linear * _constant(shape[d]) + index[d] if linear != ZERO else index[d]
            for d in reversed(old[1:]):
                size = _constant(x.shape[d])
                result[d] = linear.mod(size)
                linear = linear.floordiv(size)
            if old:
                result[old[0]] = linear
        return tuple(result)

    for old, new in groups:
        for d in old[1:]:
            _constant(x.shape[d])
        for d in new[1:]:
            _constant(shape[d])
    return x.moved(shape, where)


def _constant(size: Affine) -> int:
    if not size.is_constant:
        raise Unsuited("a view that merges or splits dimensions of symbolic size")
    return size.const


def _factors(size: Affine) -> tuple[int, tuple[Affine, ...]]:
    if size.is_constant:
        return size.const, ()
    common = abs(size.const)
    for _, c in size.terms:
        common = gcd(common, c)
    rest = Affine.build({n: c // common for n, c in size.terms}, size.const // common)
    return common, (rest,)


def _groups(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """Smallest runs of dimensions of both shapes with equal products, in order."""
    left = [d for d, n in enumerate(old) if n != ONE]
    right = [d for d, n in enumerate(new) if n != ONE]
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(left) or j < len(right):
        if i == len(left) or j == len(right):
            raise Unsuited("a view between shapes of unequal size")
        a, b = [left[i]], [right[j]]
        i, j = i + 1, j + 1
        while (p := _product(old, a)) != (q := _product(new, b)):
            grow_left = len(p[1]) < len(q[1]) or (len(p[1]) == len(q[1]) and p[0] < q[0])
            if grow_left and i < len(left):
                a.append(left[i])
                i += 1
            elif not grow_left and j < len(right):
                b.append(right[j])
                j += 1
            else:
                raise Unsuited("a view whose sizes cannot be matched")
        groups.append((a, b))
    return groups


def _product(shape: Shape, dims: Sequence[int]) -> tuple[int, tuple[str, ...]]:
    parts = [_factors(shape[d]) for d in dims]
    return prod(p[0] for p in parts), tuple(sorted(str(f) for p in parts for f in p[1]))


def permute(x: Lazy, dims: Sequence[int]) -> Lazy:
    order = [dimension(d, x.rank) for d in dims]
    back = {d: k for k, d in enumerate(order)}
    shape = tuple(x.shape[d] for d in order)
    return x.moved(shape, lambda index: tuple(index[back[d]] for d in range(x.rank)))


def broadcast(x: Lazy, shape: Shape) -> Lazy:
    """Dimensions of size 1 repeated, new ones in front: expand, and operands of any rank."""
    shift = len(shape) - x.rank
    if shape == x.shape:
        return x
    same = [x.shape[d] == shape[d + shift] for d in range(x.rank)]
    if any(not s and x.shape[d] != ONE for d, s in enumerate(same)):
        raise Unsuited("sizes that do not broadcast by their symbols")

    def where(index: Index) -> Index:
        return tuple(index[d + shift] if same[d] else ZERO for d in range(x.rank))

    return x.moved(shape, where)


def sliced(x: Lazy, shape: Shape, dim: Any, start: Any, step: Any) -> Lazy:
    d = dimension(dim, x.rank)
    first = affine(0 if start is None else start)
    if first.is_constant and first.const < 0:
        first = first + x.shape[d]
    if not isinstance(step, int) or step < 1:
        raise Unsuited(f"a slice with step {step!r}")

    def where(index: Index) -> Index:
        return (*index[:d], first + index[d] * step, *index[d + 1 :])

    return x.moved(shape, where)


def selected(x: Lazy, dim: Any, index: Any) -> Lazy:
    d, at = dimension(dim, x.rank), affine(index)
    if at.is_constant and at.const < 0:
        at = at + x.shape[d]
    return x.moved((*x.shape[:d], *x.shape[d + 1 :]), lambda i: (*i[:d], at, *i[d:]))


def flipped(x: Lazy, dims: Sequence[int]) -> Lazy:
    turned = {dimension(d, x.rank) for d in dims}

    def where(index: Index) -> Index:
        return tuple(
            x.shape[d] - 1 - i if d in turned else i for d, i in enumerate(index)
        )

    return x.moved(x.shape, where)


# -- several places ---------------------------------------------------------------------------


def concatenated(parts: Sequence[Lazy], shape: Shape, dim: Any, dtype: str) -> Lazy:
    d = dimension(dim, len(shape))
    starts = [ZERO]
    for part in parts:
        starts.append(starts[-1] + part.shape[d])

    def at(index: Index) -> Expr:
        value: Expr | None = None
        for part, start, stop in reversed(list(zip(parts, starts, starts[1:], strict=False))):
            inside = (*index[:d], index[d] - start, *index[d + 1 :])
            found = convert(part.at(inside), dtype)
            value = found if value is None else Select(
                dtype, holds("lt", index[d], stop), found, value
            )
        assert value is not None
        return value

    return Lazy(shape, dtype, at, any(p.computed for p in parts))


def padded(x: Lazy, shape: Shape, pad: Sequence[Any], value: Any) -> Lazy:
    before = [ZERO] * x.rank
    for k in range(len(pad) // 2):
        before[x.rank - 1 - k] = affine(pad[2 * k])

    def at(index: Index) -> Expr:
        inside = tuple(i - b for i, b in zip(index, before, strict=True))
        result = x.at(inside)
        fill = convert(value, x.dtype)
        for i, size, whole in zip(inside, x.shape, shape, strict=True):
            if size != whole:
                test = both(holds("ge", i, ZERO), holds("lt", i, size))
                result = Select(x.dtype, test, result, fill)
        return result

    return Lazy(shape, x.dtype, at, x.computed)


def slice_scattered(x: Lazy, source: Lazy, dim: Any, start: Any, step: Any) -> Lazy:
    d = dimension(dim, x.rank)
    first = affine(0 if start is None else start)
    if first.is_constant and first.const < 0:
        first = first + x.shape[d]
    if step != 1:
        raise Unsuited("slice_scatter with a step")

    def at(index: Index) -> Expr:
        i = index[d] - first
        inside = both(holds("ge", i, ZERO), holds("lt", i, source.shape[d]))
        new = convert(source.at((*index[:d], i, *index[d + 1 :])), x.dtype)
        return Select(x.dtype, inside, new, x.at(index))

    return Lazy(x.shape, x.dtype, at, x.computed or source.computed)


def select_scattered(x: Lazy, source: Lazy, dim: Any, index: Any) -> Lazy:
    d, place = dimension(dim, x.rank), affine(index)
    if place.is_constant and place.const < 0:
        place = place + x.shape[d]

    def at(index: Index) -> Expr:
        new = convert(source.at((*index[:d], *index[d + 1 :])), x.dtype)
        return Select(x.dtype, holds("eq", index[d], place), new, x.at(index))

    return Lazy(x.shape, x.dtype, at, x.computed or source.computed)


# -- constants --------------------------------------------------------------------------------


def filled(shape: Shape, dtype: str, value: Any) -> Lazy:
    constant = convert(value, dtype)
    return Lazy(shape, dtype, lambda index: constant)


def counted(shape: Shape, dtype: str, start: Any, step: Any) -> Lazy:
    """``start + step * i``."""
    if not isinstance(step, int):
        raise Unsuited(f"iota with step {step!r}")
    first = affine(start)

    def at(index: Index) -> Expr:
        value = position(index[0] * step + first)
        return value if dtype == "int64" else Cast(dtype, value)

    return Lazy(shape, dtype, at)


Handler = Callable[[Sequence[Any], Mapping[str, Any], Shape, str], Lazy]


def _view(args: Sequence[Any], options: Mapping[str, Any], shape: Shape, dtype: str) -> Lazy:
    return view(args[0], shape)


def _same(args: Sequence[Any], options: Mapping[str, Any], shape: Shape, dtype: str) -> Lazy:
    x = args[0]
    assert isinstance(x, Lazy)
    return x


def _swap(args: Sequence[Any], options: Mapping[str, Any], shape: Shape, dtype: str) -> Lazy:
    x = args[0]
    order = list(range(x.rank))
    if x.rank > 1:
        first, second = (args[1], args[2]) if len(args) > 2 else (0, 1)
        a, b = dimension(first, x.rank), dimension(second, x.rank)
        order[a], order[b] = order[b], order[a]
    return permute(x, order)


def _option(
    args: Sequence[Any], options: Mapping[str, Any], k: int, name: str, default: Any
) -> Any:
    return args[k] if len(args) > k else options.get(name, default)


HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "squeeze", "unsqueeze"), _view),
    **dict.fromkeys(("clone", "alias", "detach", "contiguous", "lift_fresh_copy"), _same),
    **dict.fromkeys(("transpose", "t"), _swap),
    "permute": lambda a, o, shape, dtype: permute(a[0], a[1]),
    "expand": lambda a, o, shape, dtype: broadcast(a[0], shape),
    "slice": lambda a, o, shape, dtype: sliced(
        a[0], shape, _option(a, o, 1, "dim", 0), _option(a, o, 2, "start", 0),
        _option(a, o, 4, "step", 1),
    ),
    "select": lambda a, o, shape, dtype: selected(a[0], a[1], a[2]),
    "flip": lambda a, o, shape, dtype: flipped(a[0], a[1]),
    "rev": lambda a, o, shape, dtype: flipped(a[0], a[1]),
    "cat": lambda a, o, shape, dtype: concatenated(a[0], shape, _option(a, o, 1, "dim", 0), dtype),
    "constant_pad_nd": lambda a, o, shape, dtype: padded(
        a[0], shape, a[1], _option(a, o, 2, "value", 0)
    ),
    "slice_scatter": lambda a, o, shape, dtype: slice_scattered(
        a[0], a[1], _option(a, o, 2, "dim", 0), _option(a, o, 3, "start", 0),
        _option(a, o, 5, "step", 1),
    ),
    "select_scatter": lambda a, o, shape, dtype: select_scattered(a[0], a[1], a[2], a[3]),
    "full": lambda a, o, shape, dtype: filled(shape, dtype, a[1]),
    "scalar_tensor": lambda a, o, shape, dtype: filled(shape, dtype, a[0]),
    "iota": lambda a, o, shape, dtype: counted(shape, dtype, o.get("start", 0), o.get("step", 1)),
}  # fmt: skip
"""Rules by the operator's name: arguments, keywords, sizes and element type of the result."""

__all__ = ["HANDLERS", "ZERO", "Index", "Lazy", "affine", "broadcast", "position"]
