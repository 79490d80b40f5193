"""The text of one Triton kernel."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from perfkit.analysis.reductions import Reduction
from perfkit.codegen import triton_text as text
from perfkit.codegen.names import Names
from perfkit.codegen.nodes import Bound, map_bound
from perfkit.codegen.triton_axes import Axes
from perfkit.codegen.triton_masks import name_masks
from perfkit.codegen.triton_nodes import Barrier, Held, If, Node, Repeat, Run, Tile, runs
from perfkit.codegen.triton_run import Dot, Reducing, Statements
from perfkit.codegen.triton_scan import scan_lines
from perfkit.codegen.triton_space import Placed, Space
from perfkit.ir.affine import Affine
from perfkit.ir.expr import ITEMSIZE, AffineValue, Load, loads, walk
from perfkit.runtime.triton_module import Argument, KernelSpec
from perfkit.schedule.gpu import default_warps

SCALAR_STAGES = 2
"""Of a product without tensor cores, as in IEEE single precision: its arithmetic takes longest, and
with three of them ptxas spills in tiles of 32 x 64 x 32 although it has registers left."""

GROUP = 8
"""Rows of tiles whose programs are numbered column by column."""


@dataclass(frozen=True)
class GridLoop:
    """One dimension of a grid: the variable runs over ``count = high - low + 1`` values."""

    variable: str
    low: Bound
    high: Bound


@dataclass(frozen=True)
class Kernel:
    """A kernel's text, its interface, and the grid that it is launched on."""

    spec: KernelSpec
    text: str
    grid: tuple[GridLoop, ...]
    comment: tuple[str, ...]


class KernelWriter:
    """Writes one kernel, statement by statement."""

    def __init__(
        self, space: Space, name: str, fp: str, reductions: Mapping[str, Reduction], names: Names
    ) -> None:
        self.space = space
        self.name = name
        self.fp = fp
        self.names = names
        self.statements = Statements(space, Axes.of(space), reductions, names)
        self.lines: list[str] = []
        self.depth = 1
        self.standing: dict[str, Affine] = {}  # lanes whose tensor is defined, with their block
        self.summing: dict[str, str] = {}  # statements whose lanes sum in a tensor of this name
        self.has_dot = any(self.statements.dot(p) for p in space.placed.values())

    def kernel(self, nodes: tuple[Node, ...]) -> Kernel:
        """The whole kernel around a program."""
        launch = self.space.launch
        grid = tuple(
            GridLoop(self.space.variable(loop), *self.space.bounds(loop)) for loop in launch.grid
        )
        self._program(grid)
        self._body(nodes, {})
        self.lines = name_masks(self.lines, lambda: self.names.fresh("mask"))
        spec = KernelSpec(
            name=self.name,
            arguments=self._arguments(grid),
            warps=self._warps(),
            stages=3 if self.has_dot else 2,
            fp_fusion=self.fp != "strict",
        )
        given = frozenset(a.name for a in spec.arguments if a.kind == "array")
        operand = self._single_operand(given)
        if operand:
            spec = replace(
                spec, stages=SCALAR_STAGES, half_of=operand, half_stages=spec.stages
            )
        comment = tuple(f"{n}: {source_of(p)}" for n, p in self.space.placed.items())
        text = "\n".join([*_head(spec), *self.lines]) + "\n"
        return Kernel(spec, text, grid, comment)

    def _single_operand(self, arrays: frozenset[str]) -> str:
        """Of ``arrays``, one that a product of matrices in single precision reads; else ""."""
        for p in self.space.placed.values():
            if self.statements.dot(p) and p.statement.value.dtype == "float32":
                read = [a.array for a in loads(p.statement.value)]
                return next((n for n in read if n in arrays), "")
        return ""

    def _warps(self) -> int:
        """As marked, or by the largest tensor."""
        marks = [loop.mark("warps") for loop in self.space.launch.grid]
        for mark in marks:
            if mark is not None:
                return mark.factor
        largest = 1
        for p in self.space.placed.values():
            gone = self.statements.axes.contracted if self.statements.dot(p) else ()
            extents = [self.space.sizes[x.name] for x in p.lanes if x.name not in gone]
            width = ITEMSIZE[self.space.scop.array(p.write.array).dtype]
            largest = max(largest, width * math.prod(extents))
        return default_warps(largest, self.has_dot)

    def _arguments(self, grid: tuple[GridLoop, ...]) -> tuple[Argument, ...]:
        """What the text mentions: arrays, sizes, host loops, the grid, scalars."""
        scop = self.space.scop
        used = set(re.findall(r"[A-Za-z_]\w*", "\n".join(self.lines)))
        sizes = [*scop.parameters, *(loop.name for loop in self.space.launch.host)]
        sizes += [n for g in grid for n in (f"{g.variable}_low", f"{g.variable}_count")]
        return (
            *(Argument(a.name, "array", a.dtype) for a in scop.arrays
              if a.name in self.statements.touched),
            *(Argument(n, "size", "int64") for n in sizes if text.safe(n) in used),
            *(Argument(s.name, "scalar", s.dtype) for s in scop.scalars
              if text.safe(s.name) in used),
        )  # fmt: skip

    # -- lines ---------------------------------------------------------------------------------

    def _line(self, *lines: str) -> None:
        self.lines += ["    " * self.depth + line for line in lines]

    @contextmanager
    def _indented(self) -> Iterator[None]:
        around = dict(self.standing)
        self.depth += 1
        yield
        self.depth -= 1
        self.standing = around

    def _program(self, grid: tuple[GridLoop, ...]) -> None:
        """From the number of the program to the variables of the grid, the last one fastest."""
        if grid:
            self._line("program = tl.cast(tl.program_id(0), INDEX)")
        if self.has_dot and len(grid) > 1:
            self._grouped(grid)
        else:
            for k in reversed(range(len(grid))):
                g = grid[k]
                self._grid_variable(g, f"program % {g.variable}_count" if k else "program")
                if k:
                    self._line(f"program = program // {g.variable}_count")
        for loop in self.space.launch.grid:
            if loop.name in self.space.blocks:
                self._lane(loop.name, Affine.variable(self.space.blocks[loop.name]))

    def _grid_variable(self, g: GridLoop, value: str) -> None:
        if g.low != Affine():
            fixed = isinstance(g.low, Affine) and g.low.is_constant
            value = f"{text.bound(g.low) if fixed else f'{g.variable}_low'} + {value}"
        self._line(f"{text.safe(g.variable)} = {value}")

    def _grouped(self, grid: tuple[GridLoop, ...]) -> None:
        """Tiles of a product in groups of rows: programs that run together share operands in L2."""
        *outer, rows, columns = grid
        height, width = f"{rows.variable}_count", f"{columns.variable}_count"
        if outer:
            self._line(f"batch = program // ({height} * {width})")
            self._line(f"program = program % ({height} * {width})")
        for k in reversed(range(len(outer))):
            g = outer[k]
            self._grid_variable(g, f"batch % {g.variable}_count" if k else "batch")
            if k:
                self._line(f"batch = batch // {g.variable}_count")
        self._line(f"group = program // ({GROUP} * {width})")
        self._line(f"group_rows = tl.minimum({height} - {GROUP} * group, {GROUP})")
        self._line(f"program = program % ({GROUP} * {width})")
        self._grid_variable(rows, f"{GROUP} * group + program % group_rows")
        self._grid_variable(columns, "program // group_rows")

    def _lane(self, lane: str, block: Affine) -> None:
        """Define the tensor of a lane loop's values, unless it stands there already."""
        if self.standing.get(lane) == block:
            return
        self.standing[lane] = block
        size = self.space.sizes[lane]
        start = text.affine(block * size)
        subscript = self.statements.axes.subscript(lane)
        lanes = f"tl.arange(0, {size}){subscript}"
        self._line(f"{text.safe(lane)} = {lanes}" if start == "0" else
                   f"{text.safe(lane)} = {start} + {lanes}")  # fmt: skip

    # -- nodes ---------------------------------------------------------------------------------

    def _body(self, nodes: tuple[Node, ...], tiles: Mapping[str, Tile]) -> None:
        if not nodes:
            self._line("pass")
        for node in nodes:
            match node:
                case Barrier():
                    self._line("tl.debug_barrier()")
                case If():
                    self._line(f"if {text.condition(node.condition, text.safe) or 'True'}:")
                    with self._indented():
                        self._body(node.body, tiles)
                case Repeat():
                    self._repeat(node, tiles)
                case Held():
                    self._held(node, tiles)
                case Run():
                    self._run(node, tiles)

    def _held(self, node: Held, tiles: Mapping[str, Tile]) -> None:
        for tile in node.tiles:
            for lane, block in tile.blocks:
                self._lane(lane, block)
            if tile.load is not None or not self._overwritten(tile, node.body[0]):
                self._line(self.statements.open(tile))
        self._body(node.body, {**tiles, **{t.array: t for t in node.tiles}})
        for tile in node.tiles:
            if tile.store is not None:
                self._line(self.statements.close(tile))

    def _overwritten(self, tile: Tile, first: Node) -> bool:
        """Does the first statement give the tile all of its content?"""
        if not isinstance(first, Run):
            return False
        placed = self.space.placed[first.statement]
        own, *reads = (a.array for a in placed.accesses)
        plain = own == tile.array and tile.array not in reads and placed.scan is None
        return plain and not self.statements.partial(tile, placed)

    def _run(self, run: Run, tiles: Mapping[str, Tile]) -> None:
        placed = self.space.placed[run.statement]
        self._line(f"# {run.statement}: {source_of(placed)}")
        self._lanes_of(run)
        if run.statement in self.summing:
            reducing = Reducing(self.statements, run, placed, tiles)
            self._line(*reducing.sums_step(self.summing[run.statement]))
        elif placed.scan is None:
            self._line(*self.statements.lines(run, tiles))
        else:
            self._line(*scan_lines(self.statements, run, placed, tiles))

    def _lanes_of(self, run: Run) -> None:
        values = dict(run.values)
        for loop in self.space.placed[run.statement].lanes:
            block = self.space.blocks[loop.name]
            self._lane(loop.name, values.get(block, Affine.variable(block)))

    def _repeat(self, node: Repeat, tiles: Mapping[str, Tile]) -> None:
        total = self._product(node, tiles)
        sums = self._sums(node, tiles) if total is None else {}
        if total is not None and total.before:
            self._line(total.before)
        self._line(*(reducing.sums_start(name) for name, reducing in sums.values()))
        low, high = text.bound(node.lower), text.bound(map_bound(node.upper, lambda a: a + 1))
        step = f", {node.step}" if node.step != 1 else ""
        stages = next((m.factor for m in node.marks if m.kind == "stages"), 0)
        head = f"range({low}, {high}{step})"
        if stages:
            head = f"tl.range({low}, {high}{step or ', 1'}, num_stages={stages})"
        self._line(f"for {text.safe(node.name)} in {head}:")
        with self._indented():
            for lane, block in self.space.blocks.items():
                if block == node.name:
                    self._lane(lane, Affine.variable(block))
            if total is None:
                self.summing |= {statement: name for statement, (name, _) in sums.items()}
                self._body(node.body, tiles)
            else:
                self._line(*total.step)
        if total is not None:
            self._line(*total.after)
        for statement, (name, reducing) in sums.items():
            del self.summing[statement]
            self._line(*reducing.sums_end(name))

    def _product(self, node: Repeat, tiles: Mapping[str, Tile]) -> _Product | None:
        """A loop that does nothing but add products of matrices to one tile.

        The products are summed first; what they are scaled by multiplies the sum.
        """
        run = node.body[0] if len(node.body) == 1 else None
        if not isinstance(run, Run):
            return None
        placed = self.space.placed[run.statement]
        tile = tiles.get(placed.write.array)
        dot = self.statements.dot(placed) if tile is not None else None
        if tile is None or dot is None or self._varies(dot, placed, node.name):
            return None
        reducing = Reducing(self.statements, run, placed, tiles)
        comment = f"# {run.statement}: {source_of(placed)}"
        if not dot.rest and not dot.negative and not self.statements.late(placed, dot):
            return _Product("", [comment, *reducing.products(dot, tile.name)], [])
        name = self.names.fresh(f"{tile.array}_sum")
        axes = self.statements.axes
        dtype = text.type_of(self.space.scop.array(tile.array).dtype)
        zeros = f"tl.full({axes.shape(tile.lanes)}, 0, {dtype})"
        return _Product(
            f"{name} = {zeros}",
            [comment, *reducing.products(dot, name)],
            reducing.add(dot, name),
        )

    def _sums(self, node: Repeat, tiles: Mapping[str, Tile]) -> dict[str, tuple[str, Reducing]]:
        """Statements of a loop over the blocks of their reduction whose lanes may sum first.

        Nothing else in the loop may use the element, which must be held around it.
        """
        found: dict[str, tuple[str, Reducing]] = {}
        users = Counter(
            array
            for r in runs(node.body)
            for array in {a.array for a in self.space.placed[r.statement].accesses}
        )
        for run in _direct(node.body):
            placed = self.space.placed[run.statement]
            array = placed.write.array
            blocks = [self.space.blocks[lane] for lane in placed.reduced]
            if array not in tiles or blocks != [node.name] or users[array] > 1:
                continue
            reducing = Reducing(self.statements, run, placed, tiles)
            if self.statements.dot(placed) is None and reducing.fits():
                found[run.statement] = self.names.fresh(f"{array}_sums"), reducing
        return found

    def _varies(self, dot: Dot, placed: Placed, loop: str) -> bool:
        """Does what scales the products change in the loop?"""
        names = {
            n
            for factor in dot.rest
            for e in walk(factor)
            for a in (e.access.indices if isinstance(e, Load) else
                      (e.affine,) if isinstance(e, AffineValue) else ())
            for n in a.names()
        }  # fmt: skip
        own = any(a.array == placed.write.array for f in dot.rest for a in loads(f))
        return loop in names or own


def _direct(nodes: tuple[Node, ...]) -> Iterator[Run]:
    """The statements of a loop that are in no loop inside it."""
    for node in nodes:
        match node:
            case Run():
                yield node
            case If() | Held():
                yield from _direct(node.body)


@dataclass(frozen=True)
class _Product:
    """The lines of a sum of products: before the loop, in it, and after it."""

    before: str
    step: list[str]
    after: list[str]


def source_of(placed: Placed) -> str:
    """A statement as the user wrote it, on one line of ASCII."""
    s = placed.statement
    text = " ".join(s.text.split()) if s.text else f"{s.write} = ..."
    return text.encode("ascii", "backslashreplace").decode()


def _head(spec: KernelSpec) -> Iterator[str]:
    yield "@triton.jit"
    yield f"def {spec.name}("
    for a in spec.arguments:
        annotation = f": {text.type_of(a.dtype)}" if a.kind == "scalar" else ""
        yield f"    {text.safe(a.name)}{annotation},"
    yield "    INDEX: tl.constexpr,"
    yield "):"
    for a in spec.arguments:
        name = text.safe(a.name)
        if a.kind == "size":
            yield f"    {name} = tl.cast({name}, INDEX)"
        if a.kind == "scalar":
            yield f"    {name} = tl.full((), {name}, {text.type_of(a.dtype)})"


__all__ = ["GridLoop", "Kernel", "KernelWriter", "source_of"]
