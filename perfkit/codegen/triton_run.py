"""The Triton text of one statement on tensors: loads, the value, a reduction, the store."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from perfkit.analysis.reductions import Reduction, neutral_of
from perfkit.codegen import triton_text as text
from perfkit.codegen.names import Names
from perfkit.codegen.triton_axes import Axes
from perfkit.codegen.triton_nodes import Run, Tile
from perfkit.codegen.triton_space import Placed, Space
from perfkit.errors import TransformError
from perfkit.ir import expr as ir
from perfkit.ir.affine import Affine, Constraint, Piece
from perfkit.schedule.gpu_dot import Product, contribution, products

SMALLEST_DOT = 16
"""Every extent of a ``tl.dot`` is at least this."""

LARGEST_SUMS = 8192
"""Elements of a tensor of sums, one for each lane."""

Subscripts = Mapping[str, str]
"""What follows a lane variable, or a tile, in the present context."""


@dataclass(frozen=True)
class Dot:
    """Sums over ``lane`` of left * right, one or several, and what multiplies them afterwards."""

    lane: str
    terms: tuple[tuple[tuple[ir.Expr, ...], tuple[ir.Expr, ...]], ...]
    rest: tuple[ir.Expr, ...]
    negative: bool
    rows: str
    columns: str


@dataclass
class Statements:
    """Writes statements of one kernel; collects the arrays that it touches in memory."""

    space: Space
    axes: Axes
    reductions: Mapping[str, Reduction]
    names: Names
    touched: set[str] = field(default_factory=set)

    # -- tiles ---------------------------------------------------------------------------------

    def open(self, tile: Tile) -> str:
        """The line that starts a tile: its content, or zeros."""
        dtype = text.type_of(self.dtype(tile.array))
        if tile.load is None:
            return f"{tile.name} = tl.full({self.axes.shape(tile.lanes)}, 0, {dtype})"
        values = self._blocks(tile)
        load = self._load(tile.array, tile.indices, tile.lanes, tile.load, values, {})
        return f"{tile.name} = {load}"

    def close(self, tile: Tile) -> str:
        """The line that writes a tile back; "" for one that is dead."""
        if tile.store is None:
            return ""
        pointer = self.pointer(tile.array, tile.indices, text.safe)
        self.touched.add(tile.array)
        mask = self.condition(tile.store, self._blocks(tile), {}, tile.lanes)
        return f"tl.store({pointer}, {tile.name}{f', mask={mask}' if mask else ''})"

    def _blocks(self, tile: Tile) -> dict[str, Affine]:
        return {self.space.blocks[lane]: block for lane, block in tile.blocks}

    # -- statements ----------------------------------------------------------------------------

    def lines(self, run: Run, tiles: Mapping[str, Tile]) -> list[str]:
        """Everything that a statement does, one line per load, value and store."""
        p = self.space.placed[run.statement]
        if p.reduced:
            return Reducing(self, run, p, tiles).lines()
        writer = Writer(self, run, p, tiles)
        value = writer.value(p.value, {}, None)
        return [*writer.lines, *self.assign(run, p, tiles, value, self.lanes_of(p, p.value))]

    def assign(
        self, run: Run, p: Placed, tiles: Mapping[str, Tile], value: str, lanes: frozenset[str],
        neutral: bool = False,
    ) -> list[str]:  # fmt: skip
        """Put a value where the statement writes, on the lanes that it runs on.

        ``neutral`` says that on all other lanes the value is the old one.
        """
        own = self._lanes_in(p, p.write.indices)
        values = dict(run.values)
        tile = tiles.get(p.write.array)
        if tile is not None:
            if not neutral and self.partial(tile, p):
                mask = self.condition(self.space.mask(p.name, own), values, {}, own)
                return [f"{tile.name} = tl.where({mask}, {value}, {tile.name})"]
            if lanes != frozenset(tile.lanes):
                value = f"tl.broadcast_to({value}, {self.axes.shape(tile.lanes)})"
            return [f"{tile.name} = {value}"]
        self.touched.add(p.write.array)
        indices = tuple(i.substitute(values) for i in p.write.indices)
        pointer = self.pointer(p.write.array, indices, text.safe)
        for lane in sorted(lanes - own - set(p.reduced)):
            pointer = f"{pointer} + 0 * {text.safe(lane)}"
        mask = self.condition(self.space.mask(p.name, own | lanes), values, {}, own | lanes)
        return [f"tl.store({pointer}, {value}{f', mask={mask}' if mask else ''})"]

    def partial(self, tile: Tile, p: Placed) -> bool:
        """Does the statement leave out lanes whose content matters?"""
        lanes = [lane.name for lane in p.lanes if lane.name not in tile.lanes]
        reached = self.space.sets.without(p.reached, lanes)
        runs = self.space.sets.without(p.instances, lanes)
        return not tile.used.intersect(reached).is_subset(runs)

    # -- memory --------------------------------------------------------------------------------

    def dtype(self, array: str) -> str:
        return self.space.scop.array(array).dtype

    def pointer(self, array: str, indices: tuple[Affine, ...], spell: text.Spell) -> str:
        """Row-major: ``A + (i * n + j)``."""
        if not indices:
            return text.safe(array)
        shape = self.space.scop.array(array).shape
        offset = text.affine(indices[0], spell)
        for extent, index in zip(shape[1:], indices[1:], strict=True):
            size = text.affine(extent)
            if offset != "0":
                offset = f"{text.wrapped(offset)} * {text.wrapped(size)}"
                inner = text.affine(index, spell)
                if inner != "0":
                    minus = inner.startswith("-")
                    offset += f" - {inner[1:]}" if minus else f" + {inner}"
            else:
                offset = text.affine(index, spell)
        return f"{text.safe(array)} + {text.wrapped(offset)}"

    def _load(
        self, array: str, indices: tuple[Affine, ...], lanes: tuple[str, ...] | frozenset[str],
        pieces: tuple[Piece, ...], values: Mapping[str, Affine], subscripts: Subscripts,
        bare: bool = False,
    ) -> str:  # fmt: skip
        """A load; single precision is what half precision in memory becomes, too."""
        self.touched.add(array)
        pointer = self.pointer(array, indices, speller(subscripts))
        mask = self.condition(pieces, values, subscripts, lanes) if lanes else ""
        load = f"tl.load({pointer}{f', mask={mask}, other=0' if mask else ''})"
        return f"{load}.to(tl.float32)" if self.dtype(array) == "float32" and not bare else load

    def condition(
        self, pieces: tuple[Piece, ...], values: Mapping[str, Affine], subscripts: Subscripts,
        lanes: Iterable[str] = (),
    ) -> str:  # fmt: skip
        """A mask along lanes: those it mentions, or else one of ``lanes``."""
        resolved = tuple(
            tuple(self._unscaled(c.substitute(values)) for c in piece) for piece in pieces
        )
        names = sorted(n for piece in resolved for c in piece for n in c.expr.names())
        wide = [n for n in (*names, *sorted(lanes)) if n in self.axes.sizes]
        lane = wide[0] if wide else ""
        return text.condition(resolved, speller(subscripts), lane, self.axes.sizes)

    def _unscaled(self, c: Constraint) -> Constraint:
        """``i <= (n - 1) / 64`` rather than ``64 * i < n``, whose left side may overflow."""
        scaled = [(n, k) for n, k in c.expr.terms if n in self.axes.sizes and abs(k) > 1]
        if len(scaled) != 1 or c.kind != "ge":
            return c
        ((name, k),) = scaled
        rest = c.expr - Affine.variable(name) * k
        if rest.names() & set(self.axes.sizes):
            return c
        sign = 1 if k > 0 else -1
        return Constraint(Affine.variable(name) * sign + rest.floordiv(abs(k)))

    # -- lanes ---------------------------------------------------------------------------------

    def _lanes_in(self, p: Placed, indices: tuple[Affine, ...]) -> frozenset[str]:
        wide = {loop.name for loop in p.lanes}
        return frozenset(n for i in indices for n in i.names() if n in wide)

    def lanes_of(self, p: Placed, e: ir.Expr) -> frozenset[str]:
        """The lane loops along which a value may differ."""
        found: frozenset[str] = frozenset()
        for part in ir.walk(e):
            if isinstance(part, ir.Load):
                found |= self._lanes_in(p, part.access.indices)
            elif isinstance(part, ir.AffineValue):
                found |= self._lanes_in(p, (part.affine,))
        return found

    # -- products ------------------------------------------------------------------------------

    def dot(self, p: Placed) -> Dot | None:
        """The statement as a product of matrices, where it is one."""
        found = self.reductions.get(p.name)
        if found is None or found.op != "add" or len(p.reduced) != 1 or self.axes.rank != 2:
            return None
        (lane,) = p.reduced
        order = {n: a for n, a in self.axes.position.items() if n in {x.name for x in p.lanes}}
        if lane not in self.axes.contracted or len(order) != 2:
            return None
        rows, columns = sorted(order, key=lambda n: order[n])
        if min(self.axes.sizes[n] for n in (lane, rows, columns)) < SMALLEST_DOT:
            return None
        pieces = self.space.mask(p.name, frozenset((lane, rows, columns)))
        if len(pieces) != 1 or any({lane, rows, columns} <= c.expr.names() for c in pieces[0]):
            return None
        terms = []
        beside: set[tuple[tuple[ir.Expr, ...], bool]] = set()
        for term in products(contribution(p.value, p.write, 0)):
            sides = self._sides(p, term, lane, rows, columns)
            if sides is None:
                return None
            terms.append(sides[:2])
            beside.add(sides[2:])
        if len(beside) != 1:  # scaled differently, or one subtracted from the other
            return None
        ((rest, negative),) = beside
        return Dot(lane, tuple(terms), rest, negative, rows, columns)

    def _sides(
        self, p: Placed, term: Product, lane: str, rows: str, columns: str
    ) -> tuple[tuple[ir.Expr, ...], tuple[ir.Expr, ...], tuple[ir.Expr, ...], bool] | None:
        """The factors along rows, those along columns, and others; None for no product of both."""
        sides: dict[frozenset[str], list[ir.Expr]] = {}
        for factor in term.factors:
            sides.setdefault(self.lanes_of(p, factor) & {lane, rows, columns}, []).append(factor)
        left, right = frozenset((rows, lane)), frozenset((columns, lane))
        if not {left, right} <= set(sides) or any(
            lane in key and key not in (left, right, frozenset((lane,))) for key in sides
        ):
            return None
        dtype = self.dtype(p.write.array)
        if any(f.dtype != dtype or f.dtype not in ir.FLOATS for f in term.factors):
            return None
        rest = tuple(f for key, fs in sides.items() if lane not in key for f in fs)
        both = tuple(sides.get(frozenset((lane,)), ()))
        return (*sides[left], *both), tuple(sides[right]), rest, term.negative

    def late(self, p: Placed, dot: Dot) -> tuple[Constraint, ...]:
        """The constraints on both lanes of the result: no operand can have zeros for them."""
        (piece,) = self.space.mask(p.name, frozenset((dot.lane, dot.rows, dot.columns)))
        return tuple(c for c in piece if {dot.rows, dot.columns} <= c.expr.names())


def dot_text(a: str, b: str, total: str = "") -> str:
    """The product, added to ``total``; IEEE single precision rather than TF32."""
    return f'tl.dot({a}, {b}, {f"{total}, " if total else ""}input_precision="ieee")'


def speller(subscripts: Subscripts) -> text.Spell:
    return lambda name: text.safe(name) + subscripts.get(name, "")


_FUNCTION = {"add": "sum", "min": "min", "max": "max"}


@dataclass
class Writer:
    """The loads of one statement, and values over them."""

    statements: Statements
    run: Run
    placed: Placed
    tiles: Mapping[str, Tile]
    lines: list[str] = field(default_factory=list)

    def value(
        self, e: ir.Expr, subscripts: Subscripts, pieces: tuple[Piece, ...] | None,
        bare: bool = False,
    ) -> str:  # fmt: skip
        """The text of a value; ``pieces`` replace the mask of its loads where given."""
        values = dict(self.run.values)
        loads = {
            a: self._access(a, values, subscripts, pieces, bare)
            for a in dict.fromkeys(ir.loads(e))
        }
        spell = speller(subscripts)
        resolved = ir.transform(
            e,
            lambda x: ir.AffineValue(x.dtype, x.affine.substitute(values))
            if isinstance(x, ir.AffineValue) else x,
        )  # fmt: skip
        return text.Values(loads, spell).text(resolved)

    def _access(
        self, access: ir.Access, values: Mapping[str, Affine], subscripts: Subscripts,
        pieces: tuple[Piece, ...] | None, bare: bool,
    ) -> str:  # fmt: skip
        s, p = self.statements, self.placed
        tile = self.tiles.get(access.array)
        if tile is not None:
            return tile.name + (subscripts.get(tile.lanes[0], "") if tile.lanes else "")
        lanes = s._lanes_in(p, access.indices)
        mask = s.space.mask(p.name, lanes) if pieces is None else pieces
        indices = tuple(i.substitute(values) for i in access.indices)
        line = s._load(access.array, indices, lanes, mask, values, subscripts, bare)
        name = s.names.fresh(f"{access.array}_")
        self.lines.append(f"{name} = {line}")
        return name


@dataclass
class Reducing:
    """A statement that combines the lanes of a loop into one element each."""

    statements: Statements
    run: Run
    placed: Placed
    tiles: Mapping[str, Tile]

    def lines(self) -> list[str]:
        dot = self.statements.dot(self.placed)
        if dot is not None:
            return self.dot_lines(dot)
        lines, value, lanes = self.added()
        return [*lines, *self.combined(value, lanes)]

    @property
    def op(self) -> str:
        found = self.statements.reductions.get(self.placed.name)
        if found is None or found.op not in _FUNCTION:
            name = self.placed.name
            raise TransformError(f"{name}: Triton code has no reduction over lanes for it")
        return found.op

    @property
    def neutral(self) -> int | float:
        return neutral_of(self.op, self.statements.dtype(self.placed.write.array))

    def added(self) -> tuple[list[str], str, frozenset[str]]:
        """Loads, what each lane adds, and the lanes along which that differs."""
        s, p = self.statements, self.placed
        (lane,) = p.reduced
        writer = Writer(s, self.run, p, self.tiles)
        neutral = self.neutral
        added = contribution(p.value, p.write, neutral)
        value, lanes = self.masked(added, writer, lane, neutral)
        return writer.lines, value, lanes

    def combined(self, value: str, lanes: frozenset[str]) -> list[str]:
        """Combine the lanes of a value, and that with the element."""
        s, p, op = self.statements, self.placed, self.op
        (lane,) = p.reduced
        dtype = s.dtype(p.write.array)
        for axis, keep in self.axes(lane):
            value = f"tl.{_FUNCTION[op]}({value}, axis={axis}{keep})"
        name = s.names.fresh(f"{p.write.array}_")
        old = Writer(s, self.run, p, self.tiles)
        before = old.value(ir.Load(dtype, p.write), {}, None)
        spread = (lanes | self._masked() | s._lanes_in(p, p.write.indices)) - {lane}
        updated = text.COMBINE[op].format(before, name)
        assigned = s.assign(self.run, p, self.tiles, updated, spread, neutral=True)
        return [f"{name} = {value}.to({text.type_of(dtype)})", *old.lines, *assigned]

    # -- lanes that sum for themselves ---------------------------------------------------------

    def fits(self) -> bool:
        """Can a tensor have a sum for every lane?"""
        sizes = self.statements.axes.sizes
        return math.prod(sizes[x.name] for x in self.placed.lanes) <= LARGEST_SUMS

    def sums_start(self, name: str) -> str:
        """The line before the loop that the lanes sum over."""
        s, p = self.statements, self.placed
        (lane,) = p.reduced
        zero = text.typed_constant(ir.Const(s.dtype(p.write.array), self.neutral))
        return f"{name} = tl.broadcast_to({zero}, {self._shape([x.name for x in p.lanes], lane)})"

    def sums_step(self, name: str) -> list[str]:
        """The lines in the loop."""
        lines, value, _ = self.added()
        return [*lines, f"{name} = {text.COMBINE[self.op].format(name, value)}"]

    def sums_end(self, name: str) -> list[str]:
        """The lines after it: the lanes are combined, and that with the element."""
        (lane,) = self.placed.reduced
        every = frozenset(x.name for x in self.placed.lanes)
        return self.combined(name, every - {lane})

    def _shape(self, every: list[str], lane: str) -> str:
        """All lanes of the statement, a contracted one last."""
        axes = self.statements.axes
        if lane not in axes.contracted:
            return axes.shape(frozenset(every))
        size = axes.sizes[lane]
        if len(every) == 1:
            return f"({size},)"
        return f"{axes.shape(frozenset(every) - {lane}).rstrip(',)')}, {size})"

    def masked(
        self, added: ir.Expr, writer: Writer, lane: str, neutral: int | float
    ) -> tuple[str, frozenset[str]]:
        """What each lane adds, neutral where the statement does not run; and where it differs."""
        s, p = self.statements, self.placed
        every = frozenset(x.name for x in p.lanes)
        trailing = lane in s.axes.contracted and len(every) > 1
        subscripts = {n: s.axes.trailing(n) for n in every} if trailing else {}
        value = writer.value(added, subscripts, None)
        lanes = s.lanes_of(p, added)
        if lane not in lanes:
            value = f"({value} + 0 * {speller(subscripts)(lane)})"
        pieces = s.space.mask(p.name, every)
        mask = s.condition(pieces, dict(self.run.values), subscripts, [lane])
        if mask:
            zero = text.typed_constant(ir.Const(s.dtype(p.write.array), neutral))
            value = f"tl.where({mask}, {value}, {zero})"
        return value, lanes

    def axes(self, lane: str) -> list[tuple[int, str]]:
        """The axes to combine, and how: an element without lanes is a scalar, not a tensor."""
        s, p = self.statements, self.placed
        others = len(p.lanes) > 1
        if lane in s.axes.contracted:
            return [(s.axes.rank if others else 0, "")]
        if s._lanes_in(p, p.write.indices):
            return [(s.axes.position[lane], ", keep_dims=True")]
        return [(axis, "") for axis in reversed(range(s.axes.rank))]

    def _masked(self) -> frozenset[str]:
        every = frozenset(x.name for x in self.placed.lanes)
        pieces = self.statements.space.mask(self.placed.name, every)
        return frozenset(n for piece in pieces for c in piece for n in c.expr.names() if n in every)

    # -- tl.dot --------------------------------------------------------------------------------

    def dot_lines(self, dot: Dot) -> list[str]:
        name = self.statements.names.fresh(f"{self.placed.write.array}_")
        return [*self.products(dot, name, empty=True), *self.add(dot, name)]

    def products(self, dot: Dot, name: str, empty: bool = False) -> list[str]:
        """Add the products of matrices to ``name``, which is nothing yet where ``empty``."""
        lines: list[str] = []
        for k, (left, right) in enumerate(dot.terms):
            loads, a, b = self.operands(dot, left, right)
            total = "" if empty and not k else name
            lines += [*loads, f"{name} = {dot_text(a, b, total)}"]
        return lines

    def add(self, dot: Dot, name: str) -> list[str]:
        """Add a finished product of matrices to the element that the statement updates."""
        s, p = self.statements, self.placed
        writer = Writer(s, self.run, p, self.tiles)
        value = " * ".join([*(writer.value(f, {}, None) for f in dot.rest), name])
        late = s.late(p, dot)
        if late:
            value = f"tl.where({s.condition((late,), dict(self.run.values), {})}, {value}, 0)"
        before = writer.value(ir.Load(s.dtype(p.write.array), p.write), {}, None)
        value = f"{before} {'-' if dot.negative else '+'} {value}"
        own = frozenset((dot.rows, dot.columns))
        return [*writer.lines, *s.assign(self.run, p, self.tiles, value, own, neutral=True)]

    def operands(
        self, dot: Dot, left: tuple[ir.Expr, ...], right: tuple[ir.Expr, ...]
    ) -> tuple[list[str], str, str]:
        """The two matrices, with zeros where the statement does not run."""
        lines: list[str] = []
        names = []
        sides = (
            (left, {dot.lane: "[None, :]"}, dot.columns),
            (right, {dot.lane: "[:, None]"}, dot.rows),
        )
        for factors, subscripts, other in sides:
            writer = Writer(self.statements, self.run, self.placed, self.tiles)
            names.append(self.operand(dot, factors, subscripts, other, writer))
            lines += writer.lines
        return lines, names[0], names[1]

    def operand(
        self, dot: Dot, factors: tuple[ir.Expr, ...], subscripts: Subscripts, other: str,
        writer: Writer,
    ) -> str:  # fmt: skip
        s, p = self.statements, self.placed
        kept = frozenset((dot.lane, dot.rows, dot.columns)) - {other}
        pieces = s.space.mask(p.name, kept)
        only = factors[0]
        alone = len(factors) == 1 and isinstance(only, ir.Load)
        if alone and not {a.array for a in ir.loads(only)} & set(self.tiles):
            return writer.value(only, subscripts, pieces, bare=True)
        value = " * ".join(writer.value(f, subscripts, None) for f in factors)
        mask = s.condition(pieces, dict(self.run.values), subscripts, [dot.lane])
        name = s.names.fresh("factor_")
        writer.lines.append(f"{name} = " + (f"tl.where({mask}, {value}, 0)" if mask else value))
        return name
