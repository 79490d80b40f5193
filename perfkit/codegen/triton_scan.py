"""The Triton text of a recurrence over lanes: ``tl.associative_scan``, from block to block."""

from __future__ import annotations

from collections.abc import Mapping

from perfkit.analysis.reductions import neutral_of
from perfkit.codegen import triton_text as text
from perfkit.codegen.triton_nodes import Run, Tile
from perfkit.codegen.triton_run import Statements, Writer
from perfkit.codegen.triton_space import Placed
from perfkit.errors import TransformError
from perfkit.ir import expr as ir
from perfkit.ir.affine import Affine
from perfkit.schedule.gpu_dot import contribution


def scan_lines(
    statements: Statements, run: Run, placed: Placed, tiles: Mapping[str, Tile]
) -> list[str]:
    """Lanes combined in a tree; the first that runs in a block starts from what memory holds.

    That was stored by the block before, in front of the barrier that ends it.
    """
    s, p, scan = statements, placed, placed.scan
    assert scan is not None
    (lane,) = p.scanned
    every = frozenset(loop.name for loop in p.lanes)
    values = dict(run.values)
    array = p.write.array
    dtype = s.dtype(array)
    before = {lane: Affine.variable(lane) - 1}
    pieces = s.space.mask(p.name, every)
    if len(pieces) != 1 or any(c.expr.divs for c in pieces[0]):
        raise TransformError(f"{p.name} scans over lanes that are no interval")
    earlier = tuple(tuple(c.substitute(before) for c in piece) for piece in pieces)

    block = s.space.blocks[lane]
    start = values.get(block, Affine.variable(block)) * s.space.sizes[lane]
    first = f"({text.safe(lane)} == {text.affine(start)})"
    inside, left_out = (s.condition(x, values, {}, every) for x in (pieces, earlier))
    if left_out:
        first = f"({first} | ~({left_out}))"
    if inside:
        first = f"({inside}) & {first}"

    neutral = neutral_of(scan.op, dtype)
    previous = p.write.substitute(before)
    writer = Writer(s, run, p, tiles)
    value = writer.value(contribution(p.value, previous, neutral), {}, None)
    zero = text.typed_constant(ir.Const(dtype, neutral))
    pointer = s.pointer(array, tuple(i.substitute(values) for i in previous.indices), text.safe)
    s.touched.add(array)
    is_first, old, x = (s.names.fresh(n) for n in (f"{lane}_first", f"{array}_", f"{array}_scan"))
    combined = text.COMBINE[scan.op].format(old, x)
    name, _ = text.combiner(scan.op)
    return [
        *writer.lines,
        f"{is_first} = {first}",
        f"{old} = tl.load({pointer}, mask={is_first}, other=0).to({text.type_of(dtype)})",
        f"{old} = tl.where({is_first}, {old}, {zero})",
        f"{x} = tl.broadcast_to({value}, {s.axes.shape(every)})",
        f"{x} = tl.where({inside}, {combined}, {zero})" if inside else f"{x} = {combined}",
        f"{x} = tl.associative_scan({x}, {s.axes.position[lane]}, {name})",
        *s.assign(run, p, tiles, x, every),
    ]


__all__ = ["scan_lines"]
