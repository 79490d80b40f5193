"""aten operators that combine many elements: sums, extrema, moments, scans and products.

Long sums are taken in two levels: that keeps the error near that of a pairwise sum, and gives
threads something to share. Scans of floats carry double precision, as torch's do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from perfkit.frontends.fx_graph import Node, Shape, Tensor
from perfkit.frontends.fx_index import Index, Lazy, dimension, selected, sliced
from perfkit.frontends.fx_pointwise import Unsuited, convert
from perfkit.frontends.fx_stages import Axis, Part, Stage, Write
from perfkit.frontends.fx_storage import Storage, element, fastest
from perfkit.ir.affine import Affine
from perfkit.ir.expr import (
    FLOATS,
    INTEGERS,
    Binary,
    BinaryOp,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Select,
    walk,
)

CHUNK = 512
"""Elements of a sum that are added up before they join the total."""

ROWS = 64
"""Rows of a column sum that are added up before they join the total."""

SHARES = 64
"""Iterations of a leading dimension that are worth sharing among threads."""

COLUMNS = 256
"""Columns that a scan along rows takes at a time."""


def variables(axes: Sequence[Axis]) -> Index:
    return tuple(Affine.variable(a.name) for a in axes)


# -- reductions -------------------------------------------------------------------------------


def reduce(
    storage: Storage, x: Lazy, dims: Sequence[int], op: BinaryOp, dtype: str, keep: bool
) -> Lazy:
    """``x`` combined over ``dims`` with ``op`` (add, mul, min or max)."""
    gone = sorted(set(dims))
    if any(n.is_constant and n.const == 0 for n in x.shape):
        raise Unsuited("a reduction of nothing")
    source = Lazy(x.shape, dtype, lambda i: convert(x.at(i), dtype), x.computed)
    result = _reduced(storage, _apart(storage, source), gone, op)
    if not keep:
        return result
    shape = tuple(Affine.constant(1) if d in gone else n for d, n in enumerate(x.shape))
    return result.moved(shape, lambda i: tuple(v for d, v in enumerate(i) if d not in gone))


def _apart(storage: Storage, x: Lazy) -> Lazy:
    """A value with functions in it, stored: they run in lanes over a row, and so does what follows
    them, which both could not do in one loop."""
    value = x.at(variables(storage.axes(x.shape)))
    return storage.stored(x) if any(isinstance(e, Call | Select) for e in walk(value)) else x


def _reduced(storage: Storage, x: Lazy, gone: list[int], op: BinaryOp) -> Lazy:
    kept = [d for d in range(x.rank) if d not in gone]
    first = x.shape[gone[0]]
    if not kept and len(gone) > 1 and _at_least(first, SHARES):
        # The leading dimension first stays, so that it can share loops with what computes x.
        return _reduced(storage, _reduced(storage, x, gone[1:], op), [0], op)
    axes = storage.axes(x.shape)
    inner = fastest(x.at(variables(axes)), axes)
    if kept and inner in kept and _at_least(first, 4 * ROWS) and first.is_constant:
        return _in_pieces(storage, x, gone, op, ROWS, column=True)
    long = x.shape[gone[-1]]
    if op == "add" and inner not in kept and long.is_constant and long.const >= 4 * CHUNK:
        return _in_pieces(storage, x, gone, op, CHUNK, column=False)
    return _simple(storage, x, gone, op, inner)


def _at_least(extent: Affine, count: int) -> bool:
    return extent.const >= count if extent.is_constant else True


def _simple(storage: Storage, x: Lazy, gone: list[int], op: BinaryOp, inner: int | None) -> Lazy:
    kept = [d for d in range(x.rank) if d not in gone]
    axes = storage.axes(x.shape)
    outer = [axes[d] for d in kept]
    name, tensor = storage.dense(tuple(x.shape[d] for d in kept), x.dtype)
    target = element(name, tensor, variables(outer))
    start = Part(tuple(outer), (Write(target, Const(x.dtype, neutral(op, x.dtype))),))
    load = Load(x.dtype, target)
    update = Write(target, Binary(x.dtype, op, load, x.at(variables(axes))))
    # Elements that are neighbours in memory are visited one after the other.
    late = [axes[d] for d in kept if d == inner]
    order = [a for a in outer if a not in late] + [axes[d] for d in gone] + late
    shared = tuple(a.name for a in outer if a not in late)
    stage = Stage((start, Part(tuple(order), (update,))), shared, f"{op} over {gone}")
    storage.add(stage)
    return Lazy(tensor.shape, x.dtype, lambda i: Load(x.dtype, element(name, tensor, i)))


def _in_pieces(
    storage: Storage, x: Lazy, gone: list[int], op: BinaryOp, size: int, column: bool
) -> Lazy:
    """Pieces of ``size`` first, then those together.

    They are cut along the first dimension that goes where what stays is contiguous (``column``),
    else along the last one.
    """
    cut = gone[0] if column else gone[-1]
    extent = x.shape[cut].const
    count = -(-extent // size)
    kept = [d for d in range(x.rank) if d not in gone]
    axes = storage.axes(x.shape)
    piece = Axis.of(f"{axes[cut].name}c", Affine.constant(count))
    begin = Affine.variable(piece.name) * size
    axes[cut] = Axis(axes[cut].name, begin, (begin + (size - 1), Affine.constant(extent - 1)))
    outer = [axes[d] for d in kept]
    shape = tuple(x.shape[d] for d in kept)
    lead = [piece, *outer] if column else [*outer, piece]
    name, tensor = storage.dense(
        (Affine.constant(count), *shape) if column else (*shape, Affine.constant(count)), x.dtype
    )
    target = element(name, tensor, variables(lead))
    start = Part(tuple(lead), (Write(target, Const(x.dtype, neutral(op, x.dtype))),))
    load = Load(x.dtype, target)
    update = Write(target, Binary(x.dtype, op, load, x.at(variables(axes))))
    rest = [axes[d] for d in gone]
    order = [piece, *rest, *outer] if column else [*outer, *(a for a in rest if a is not axes[cut])]
    if not column:
        order += [piece, axes[cut]]
    shared = (piece.name,) if column else tuple(a.name for a in lead)
    if not column and len(gone) > 1:
        shared = tuple(a.name for a in outer)
    storage.add(Stage((start, Part(tuple(order), (update,))), shared, f"{op}, pieces"))
    parts = Lazy(tensor.shape, x.dtype, lambda i: Load(x.dtype, element(name, tensor, i)))
    if column:
        return _simple(storage, parts, [0], op, len(kept))
    return _simple(storage, parts, [len(kept)], op, None)


def neutral(op: str, dtype: str) -> int | float:
    if op in ("add", "mul"):
        return 0 if op == "add" else 1
    if dtype in FLOATS:
        return -inf if op == "max" else inf
    raise Unsuited(f"{op} of {dtype}")


# -- operators --------------------------------------------------------------------------------


def _dims(value: Any, rank: int) -> list[int]:
    if value is None or value == ():
        return list(range(rank))
    if isinstance(value, int):
        value = (value,)
    return [dimension(d, rank) for d in value]


def _argument(args: Sequence[Any], options: Mapping[str, Any], k: int, name: str, at: Any) -> Any:
    return args[k] if len(args) > k else options.get(name, at)


def _type(node: Node) -> str:
    assert isinstance(node.result, Tensor)
    return node.result.dtype


def _sum(storage: Storage, node: Node, args: Any, options: Any) -> Lazy:
    x: Lazy = args[0]
    dims = _dims(_argument(args, options, 1, "dim", None), x.rank)
    keep = bool(_argument(args, options, 2, "keepdim", False))
    return reduce(storage, x, dims, "add", _type(node), keep)


def _any(storage: Storage, node: Node, args: Any, options: Any) -> Lazy:
    """The largest of zeros and ones, in float32, whose maxima run in lanes."""
    x: Lazy = args[0]
    dims = _dims(_argument(args, options, 1, "dim", None), x.rank)
    keep = bool(_argument(args, options, 2, "keepdim", False))
    one, zero = Const("float32", 1.0), Const("float32", 0.0)

    def number(index: Index) -> Expr:
        # gcc finds lanes for this, not for the conversion of a boolean.
        return Select("float32", convert(x.at(index), "bool"), one, zero)

    seen = Lazy(x.shape, "float32", number, computed=True)
    largest = reduce(storage, seen, dims, "max", "float32", keep)
    return Lazy(largest.shape, "bool", lambda i: convert(largest.at(i), "bool"), computed=True)


def _mean(storage: Storage, node: Node, args: Any, options: Any) -> Lazy:
    x: Lazy = args[0]
    dims = _dims(_argument(args, options, 1, "dim", None), x.rank)
    return _averaged(_sum(storage, node, args, options), [x.shape[d] for d in dims], 0)


def _averaged(total: Lazy, sizes: Sequence[Affine], correction: int | float) -> Lazy:
    dtype = total.dtype
    if dtype not in FLOATS or any(not n.is_constant for n in sizes):
        raise Unsuited("a mean over a dimension of symbolic size")
    count = 1.0
    for n in sizes:
        count *= n.const
    if count - correction <= 0:
        raise Unsuited("a variance of too few elements")
    divisor = Const(dtype, count - correction)
    return Lazy(
        total.shape, dtype, lambda i: Binary(dtype, "div", total.at(i), divisor), computed=True
    )


def _extremum(op: BinaryOp) -> Handler:
    def handler(storage: Storage, node: Node, args: Any, options: Any) -> Lazy:
        x: Lazy = args[0]
        dims = _dims(_argument(args, options, 1, "dim", None), x.rank)
        keep = bool(_argument(args, options, 2, "keepdim", False))
        if options.get("nan") != "lost":
            raise Unsuited("a maximum that must keep NaN")
        return reduce(storage, x, dims, op, _type(node), keep)

    return handler


def _moments(storage: Storage, node: Node, args: Any, options: Any) -> tuple[Lazy, ...]:
    """var_mean: the mean first, then the squares of what is left."""
    x: Lazy = args[0]
    assert isinstance(node.result, tuple)
    dims = _dims(_argument(args, options, 1, "dim", None), x.rank)
    correction = options.get("correction", 1)
    keep = bool(options.get("keepdim", False))
    dtype = node.result[0].dtype
    sizes = [x.shape[d] for d in dims]
    if x.computed:
        x = storage.stored(x)
    mean = _averaged(reduce(storage, x, dims, "add", dtype, True), sizes, 0)
    mean = storage.stored(mean)

    def square(index: Index) -> Expr:
        place = tuple(
            Affine.constant(0) if d in dims else i for d, i in enumerate(index)
        )
        away = Binary(dtype, "sub", x.at(index), mean.at(place))
        return Binary(dtype, "mul", away, away)

    squares = Lazy(x.shape, dtype, square, computed=True)
    total = reduce(storage, squares, dims, "add", dtype, keep)
    variance = _averaged(total, sizes, 1 if correction is None else correction)
    if not keep:
        kept = [d for d in range(x.rank) if d not in dims]
        shape = tuple(x.shape[d] for d in kept)
        zero, rank, wide = Affine.constant(0), x.rank, mean

        def narrow(index: Index) -> Index:
            return tuple(
                index[kept.index(d)] if d in kept else zero for d in range(rank)
            )

        mean = wide.moved(shape, narrow)
    return storage.stored(variance), mean


def _variance(storage: Storage, node: Node, args: Any, options: Any) -> Lazy:
    assert isinstance(node.result, Tensor)
    both = replace(node, result=(node.result, node.result))
    return _moments(storage, both, args, options)[0]


def _parts(storage: Storage, node: Node, args: Any, options: Any) -> tuple[Lazy, ...]:
    """split and unbind: slices one after the other."""
    x: Lazy = args[0]
    assert isinstance(node.result, tuple)
    d = dimension(_argument(args, options, 1 if node.base == "unbind" else 2, "dim", 0), x.rank)
    start, found = Affine.constant(0), []
    for tensor in node.result:
        if node.base == "unbind":
            found.append(selected(x, d, start))
            start = start + 1
        else:
            found.append(sliced(x, tensor.shape, d, start, 1))
            start = start + tensor.shape[d]
    return tuple(found)


# -- scans ------------------------------------------------------------------------------------


def _scan(op: BinaryOp) -> Handler:
    def handler(storage: Storage, node: Node, args: Any, options: Any) -> Lazy:
        x: Lazy = args[0]
        if not x.rank:
            raise Unsuited("a scan of a scalar")
        d = dimension(_argument(args, options, 1, "dim", 0), x.rank)
        dtype = _type(node)
        if dtype not in FLOATS and dtype not in INTEGERS:
            raise Unsuited(f"a scan of {dtype}")
        return scan(storage, x, d, op, dtype)

    return handler


def scan(storage: Storage, x: Lazy, d: int, op: BinaryOp, dtype: str) -> Lazy:
    """``y[.., i, ..] = x[.., 0, ..] op ... op x[.., i, ..]`` along dimension ``d``."""
    wide = "float64" if dtype in FLOATS else dtype
    x = _apart(storage, x)
    axes = storage.axes(x.shape)
    before, after = axes[:d], axes[d + 1 :]
    strips: list[Axis] = []
    if not before and after and after[-1].lasts[0].is_constant and len(after) == 1:
        # Columns in strips, for threads to share.
        extent = after[-1].lasts[0].const + 1
        strip = Axis.of(f"{after[-1].name}s", Affine.constant(-(-extent // COLUMNS)))
        begin = Affine.variable(strip.name) * COLUMNS
        last = (begin + (COLUMNS - 1), Affine.constant(extent - 1))
        strips, after = [strip], [Axis(after[-1].name, begin, last)]
    others = [*before, *after]
    index = variables([*before, axes[d], *after])
    name, total = storage.dense(tuple(n for k, n in enumerate(x.shape) if k != d), wide, "acc")
    running = element(name, total, variables(others))
    out, tensor = storage.dense(x.shape, dtype)
    zero = Part((*strips, *others), (Write(running, Const(wide, neutral(op, wide))),))
    grown = Binary(wide, op, Load(wide, running), convert(convert(x.at(index), dtype), wide))
    result: Expr = Load(wide, running)
    result = result if wide == dtype else Cast(dtype, result)
    steps = (Write(running, grown), Write(element(out, tensor, index), result))
    shared = tuple(a.name for a in (*strips, *before))
    storage.add(
        Stage((zero, Part((*strips, *before, axes[d], *after), steps)), shared, f"scan over {d}")
    )
    return Lazy(tensor.shape, dtype, lambda i: Load(dtype, element(out, tensor, i)))


# -- products ---------------------------------------------------------------------------------


def product(storage: Storage, a: Lazy, b: Lazy, added: Lazy | None, scale: float) -> Lazy:
    """``added + scale * a @ b`` over equal leading dimensions."""
    dtype = a.dtype
    if dtype not in FLOATS or b.dtype != dtype:
        raise Unsuited(f"a product of {a.dtype} and {b.dtype}")
    a = storage.stored(a) if a.computed else a
    b = storage.stored(b) if b.computed else b
    shape: Shape = (*a.shape[:-1], b.shape[-1])
    axes = storage.axes(shape)
    inner = Axis.of(f"i{len(storage.stages)}_k", a.shape[-1])
    k = Affine.variable(inner.name)
    *batch, row, column = variables(axes)
    left, right = a.at((*batch, row, k)), b.at((*batch, k, column))
    name, tensor = storage.dense(shape, dtype)
    target = element(name, tensor, variables(axes))
    term: Expr = Binary(dtype, "mul", left, right)
    if scale != 1:
        term = Binary(dtype, "mul", Const(dtype, float(scale)), term)
    begin = Const(dtype, 0.0) if added is None else convert(added.at(variables(axes)), dtype)
    start = Part(tuple(axes), (Write(target, begin),))
    update = Write(target, Binary(dtype, "add", Load(dtype, target), term))
    order = [*axes, inner]
    shared = tuple(x.name for x in (axes[:-2] if len(axes) > 2 else axes[:1]))
    storage.add(Stage((start, Part(tuple(order), (update,))), shared, "product"))
    return Lazy(shape, dtype, lambda i: Load(dtype, element(name, tensor, i)))


def _matmul(storage: Storage, node: Node, args: Any, options: Any) -> Lazy:
    return product(storage, args[0], args[1], None, 1.0)


def _added_matmul(storage: Storage, node: Node, args: Any, options: Any) -> Lazy:
    added, a, b = args[:3]
    beta, alpha = options.get("beta", 1), options.get("alpha", 1)
    if beta != 1:
        raise Unsuited("addmm with beta")
    assert isinstance(node.result, Tensor)
    shape = node.result.shape
    shift = len(shape) - added.rank

    def spread(index: Index) -> Index:
        one = Affine.constant(1)
        return tuple(
            Affine.constant(0) if added.shape[d] == one else index[d + shift]
            for d in range(added.rank)
        )

    return product(storage, a, b, added.moved(shape, spread), alpha)


Handler = Callable[[Storage, Node, Any, Any], Lazy | tuple[Lazy, ...]]

HANDLERS: Mapping[str, Handler] = {
    "sum": _sum, "mean": _mean, "any": _any, "amax": _extremum("max"), "amin": _extremum("min"),
    "var_mean": _moments, "var": _variance,
    "split": _parts, "split_with_sizes": _parts, "unbind": _parts,
    "cumsum": _scan("add"), "cumprod": _scan("mul"),
    "mm": _matmul, "bmm": _matmul, "addmm": _added_matmul, "baddbmm": _added_matmul,
}  # fmt: skip
"""Rules by the operator's name without overload."""

__all__ = ["HANDLERS", "product", "reduce", "scan"]
