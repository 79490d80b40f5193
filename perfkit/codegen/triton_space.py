"""Statements in the coordinates of their loops, and the sets of lanes that they run on.

For a kernel every statement is rewritten over the values of the loops around it, so that an access
is an expression of loop variables. A loop with lanes has two variables: ``i``, the tensor of
values, and ``i_b``, the number of its block, with ``i_b = floor(i / size)``. All sets here are over
named variables without a tuple, so projections and comparisons of different statements meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import islpy as isl

from perfkit.analysis.dependences import Dependences
from perfkit.analysis.scans import Scan, scan_of
from perfkit.codegen.names import Names
from perfkit.codegen.nodes import Bound, extreme
from perfkit.errors import TransformError
from perfkit.ir import expr as ir
from perfkit.ir.affine import Affine, Constraint, Domain, Piece
from perfkit.ir.isl import Polyhedra, affine_of, domain_of
from perfkit.ir.scop import Scop, Statement
from perfkit.ir.tree import Leaf, Loop, Node, Sequence, loops, statements
from perfkit.schedule import legality
from perfkit.schedule.launches import Launch, lanes

_PARAM = isl.dim_type.param


@dataclass(frozen=True)
class Placed:
    """A statement over loop values.

    ``write`` and ``value`` use the names of ``around``, the loops from the host inwards. ``lanes``
    are those with lanes, ``reduced`` those of them over which the statement reduces.
    """

    statement: Statement
    around: tuple[Loop, ...]
    write: ir.Access
    value: ir.Expr
    lanes: tuple[Loop, ...]
    reduced: tuple[str, ...]
    scanned: tuple[str, ...]
    scan: Scan | None
    instances: isl.Set  # over parameters, loops and blocks
    reached: isl.Set  # the blocks of which some lane runs, and all their lanes

    @property
    def name(self) -> str:
        return self.statement.name

    @property
    def accesses(self) -> tuple[ir.Access, ...]:
        return (self.write, *ir.loads(self.value))


class Sets:
    """isl sets over named variables, all of one context."""

    def __init__(self, poly: Polyhedra, parameters: tuple[str, ...]) -> None:
        self.ctx = poly.ctx
        self.parameters = parameters

    def read(self, names: Iterable[str], text: str) -> isl.Set:
        declared = ", ".join(dict.fromkeys((*self.parameters, *names)))
        return isl.Set.read_from_str(self.ctx, f"[{declared}] -> {{ : {text} }}")

    def of(self, pieces: tuple[Piece, ...]) -> isl.Set:
        domain = Domain((), pieces)
        return self.read(sorted(domain.names()), str(domain))

    @staticmethod
    def without(found: isl.Set, names: Iterable[str]) -> isl.Set:
        """The projection that forgets the variables ``names``."""
        for name in names:
            position = found.find_dim_by_name(_PARAM, name)
            if position >= 0:
                found = found.project_out(_PARAM, position, 1)
        return found

    @staticmethod
    def names(found: isl.Set) -> tuple[str, ...]:
        return tuple(found.get_dim_name(_PARAM, k) for k in range(found.dim(_PARAM)))

    def only(self, found: isl.Set, keep: Iterable[str]) -> isl.Set:
        kept = {*self.parameters, *keep}
        return self.without(found, [n for n in self.names(found) if n not in kept])

    @staticmethod
    def pieces(found: isl.Set, known: isl.Set) -> tuple[Piece, ...]:
        """The constraints of ``found`` that ``known`` does not imply."""
        return domain_of(found.coalesce().gist(known.coalesce()).coalesce(), ()).pieces


class Space:
    """The statements of one kernel, over its loops."""

    def __init__(
        self, poly: Polyhedra, deps: Dependences, tree: Node, launch: Launch,
        host: tuple[Constraint, ...] = (),
    ) -> None:  # fmt: skip
        """``host`` is what holds of the variables of the host loops in every launch."""
        self.poly = poly
        self.host = host
        self.deps = deps
        self.tree = tree
        self.launch = launch
        self.scop: Scop = poly.scop
        inside = loops(launch.body)
        names = Names.of(poly.scop, tree)
        self.blocks: Mapping[str, str] = {
            loop.name: names.derived(loop.name, "b")
            for loop in (*launch.grid, *inside)
            if lanes(loop)
        }
        self.sizes: Mapping[str, int] = {
            loop.name: lanes(loop) for loop in (*launch.grid, *inside) if lanes(loop)
        }
        self.sets = Sets(poly, poly.scop.parameters)
        self.placed: Mapping[str, Placed] = {n: self._place(n) for n in launch.statements}

    # -- statements ----------------------------------------------------------------------------

    def _place(self, name: str) -> Placed:
        s = self.scop.statement(name)
        around = (*self.launch.host, *self.launch.grid, *_around(self.launch.body, name))
        names = tuple(loop.name for loop in around)
        values = ", ".join(str(loop.expression(name)) for loop in around)
        source = f"{name}[{', '.join(s.iterators)}]"
        order = self.poly.map(f"{{ {source} -> [{values}] }}").intersect_domain(
            self.poly.domains[name]
        )
        inverse = self._inverse(s, order, names)
        wide = tuple(loop for loop in around if loop.name in self.sizes)
        domain = domain_of(order.range().coalesce(), names)
        instances = self.sets.of(domain.pieces).intersect(self._blocks_of(wide))
        blocks = self.sets.without(instances, [loop.name for loop in wide])
        reduced = tuple(
            loop.name
            for loop in wide
            if name in legality.carried_reductions(self.deps, self.tree, loop.name)
        )
        write = s.write.substitute(inverse)
        moving = [n for n in reduced if any(n in i.names() for i in write.indices)]
        if moving:
            raise TransformError(
                f"{name} adds several lanes of {moving[0]} to one element and others to another, "
                "which neither tl.sum nor tl.dot does"
            )
        scanned = tuple(
            loop.name
            for loop in wide
            if legality.carries_itself(self.deps, self.tree, loop.name, name)
        )
        scan = None
        if scanned:
            scan = scan_of(self.scop, s, around, scanned[0], self.deps.fp)
            if scan is None or len(scanned) > 1 or reduced:
                raise TransformError(
                    f"{name} carries dependences over the lanes of "
                    f"{' and '.join((*scanned, *reduced))} that are no single scan"
                )
        return Placed(
            statement=s,
            around=around,
            write=write,
            value=ir.substitute(s.value, inverse),
            lanes=wide,
            reduced=reduced,
            scanned=scanned,
            scan=scan,
            instances=instances,
            reached=blocks.intersect(self._blocks_of(wide)),
        )

    def _inverse(self, s: Statement, order: isl.Map, names: tuple[str, ...]) -> dict[str, Affine]:
        """The iterators of a statement in terms of the loops."""
        found: list[isl.MultiAff] = []
        function = isl.PwMultiAff.from_map(order.reverse()).gist(order.range()).coalesce()
        function.foreach_piece(lambda _, piece: found.append(piece))
        if len(found) > 1:
            raise TransformError(
                f"{s.name}: its iterators are several different expressions of the loops "
                f"{', '.join(names)}, which a tensor cannot follow"
            )
        if not found:
            return {i: Affine() for i in s.iterators}
        (only,) = found
        # on its instances an iterator such as k/3 is whole, so rounding it down changes nothing
        return {i: affine_of(only.get_at(k).floor(), names) for k, i in enumerate(s.iterators)}

    def _blocks_of(self, wide: Iterable[Loop]) -> isl.Set:
        names, parts = list[str](), ["true"]
        for loop in wide:
            block, size = self.blocks[loop.name], self.sizes[loop.name]
            names += [loop.name, block]
            parts.append(f"{size}*{block} <= {loop.name} < {size}*{block} + {size}")
        return self.sets.read(names, " and ".join(parts))

    def box(self, names: Iterable[str]) -> isl.Set:
        """What is known of the lanes ``names`` by construction, and of the sizes."""
        wide = [Loop(n, (), Leaf("")) for n in names]
        return self._blocks_of(wide).intersect(self.poly.context)

    # -- masks ---------------------------------------------------------------------------------

    def mask(self, name: str, kept: frozenset[str]) -> tuple[Piece, ...]:
        """Which of the lanes ``kept`` the statement runs on, for some lane of the others."""
        key = (name, kept)
        if key not in self._masks:
            p = self.placed[name]
            gone = [loop.name for loop in p.lanes if loop.name not in kept]
            self._masks[key] = Sets.pieces(
                Sets.without(p.instances, gone), Sets.without(p.reached, gone)
            )
        return self._masks[key]

    @cached_property
    def _masks(self) -> dict[tuple[str, frozenset[str]], tuple[Piece, ...]]:
        return {}

    # -- what runs inside a program ------------------------------------------------------------

    def variable(self, loop: Loop) -> str:
        """The scalar variable of a loop: its block where it has lanes."""
        return self.blocks.get(loop.name, loop.name)

    def program(self) -> tuple[Scop, Node]:
        """The loops of one program, lanes left out, as a SCoP over blocks.

        The variables of the host loops and of the grid are parameters of it.
        """
        fixed = tuple(self.variable(loop) for loop in (*self.launch.host, *self.launch.grid))
        made: list[Statement] = []
        for p in self.placed.values():
            inner = tuple(self.variable(loop) for loop in p.around[len(fixed) :])
            blocks = self.sets.without(p.instances, [loop.name for loop in p.lanes])
            pieces = Sets.pieces(blocks, self.poly.context)
            made.append(Statement(p.name, Domain(inner, pieces), ir.Access(""), ir.Expr("bool")))
        context = self.scop.context.intersect(self.outside())
        scop = Scop(
            self.scop.name, (*self.scop.parameters, *fixed), context, (), (), tuple(made),
            self._tree(self.launch.body),
        )  # fmt: skip
        return scop, scop.tree

    def _tree(self, node: Node) -> Node:
        match node:
            case Loop():
                name = self.variable(node)
                schedule = tuple((s, Affine.variable(name)) for s in statements(node))
                return replace(node, name=name, schedule=schedule, body=self._tree(node.body))
            case Sequence(children=children):
                return Sequence(tuple(map(self._tree, children)))
            case _:
                return node

    # -- bounds --------------------------------------------------------------------------------

    def bounds(self, loop: Loop) -> tuple[Bound, Bound]:
        """The least and the largest value of a loop's scalar variable, over the outer host loops.

        A bounding box: where the loop depends on others of the grid, what is too much is masked.
        """
        return loop_bounds(self.sets, [p.instances for p in self.placed.values()],
                           self.variable(loop), self._host_around(loop))  # fmt: skip

    def _host_around(self, loop: Loop) -> tuple[str, ...]:
        names = [h.name for h in self.launch.host]
        return tuple(names[: names.index(loop.name)] if loop.name in names else names)

    def outside(self) -> tuple[Piece, ...]:
        """The constraints that every program of every launch fulfils."""
        known = list(self.host)
        for loop in self.launch.grid:
            known += within(self.variable(loop), *self.bounds(loop))
        return (tuple(known),)


def within(variable: str, low: Bound, high: Bound) -> list[Constraint]:
    """``low <= variable <= high``, as far as that is one constraint each."""
    value = Affine.variable(variable)
    found = []
    if isinstance(low, Affine):
        found.append(Constraint(value - low))
    if isinstance(high, Affine):
        found.append(Constraint(high - value))
    return found


def loop_bounds(
    sets: Sets, instances: Iterable[isl.Set], variable: str, outer: tuple[str, ...]
) -> tuple[Bound, Bound]:
    """Bounds of ``variable`` over all the sets, in terms of sizes and of ``outer``."""
    lows: list[Bound] = []
    highs: list[Bound] = []
    for found in instances:
        if found.is_empty():
            continue
        part = sets.only(found, (variable, *outer)).remove_divs().coalesce()
        (piece,) = domain_of(isl.Set.from_basic_set(part.simple_hull()), ()).pieces
        low: list[Bound] = []
        high: list[Bound] = []
        for c in piece:
            a = c.expr.coefficient(variable)
            rest = c.expr - Affine.variable(variable) * a
            if a == 0 or variable in rest.names():
                continue
            if a > 0 or c.kind == "eq":
                sign = 1 if a > 0 else -1
                low.append((rest * -sign + (abs(a) - 1)).floordiv(abs(a)))
            if a < 0 or c.kind == "eq":
                sign = 1 if a < 0 else -1
                high.append((rest * sign).floordiv(abs(a)))
        if not low or not high:
            raise TransformError(f"loop variable {variable} has no bounds in terms of the sizes")
        lows.append(extreme("max", tuple(low)))
        highs.append(extreme("min", tuple(high)))
    if not lows:
        return Affine.constant(0), Affine.constant(-1)
    return extreme("min", tuple(lows)), extreme("max", tuple(highs))


def _around(node: Node, statement: str) -> tuple[Loop, ...]:
    match node:
        case Loop(body=body):
            return (node, *_around(body, statement))
        case Sequence(children=children):
            return next(_around(c, statement) for c in children if statement in statements(c))
        case _:
            return ()


__all__ = ["Placed", "Sets", "Space", "loop_bounds", "within"]
