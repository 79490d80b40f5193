"""From a loop tree to the loop AST, through isl's AST generator.

The tree becomes an isl schedule tree with one single-member band per loop; a mark above every band
carries the loop's name through isl, so names and marks survive whatever isl does to the loops
(splitting, separation, elimination of loops with one iteration).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

import islpy as isl

from perfkit.codegen.nodes import (
    Bound,
    Extreme,
    For,
    Guard,
    Instance,
    Node,
    Pieces,
    conjunction,
    constraints_above,
    constraints_below,
    extreme,
    instances,
    leaves,
)
from perfkit.errors import InternalError
from perfkit.ir import tree as trees
from perfkit.ir.affine import Affine, Constraint, Domain, FloorDiv, Piece
from perfkit.ir.isl import Polyhedra
from perfkit.ir.scop import Scop

_OP = isl.ast_expr_op_type
_NODE = isl.ast_node_type
_EXPR = isl.ast_expr_type

Case = tuple[tuple[Piece, ...], Bound]
"""A bound and the condition under which it applies."""


def lower(poly: Polyhedra, scop: Scop, tree: trees.Node) -> tuple[Node, ...]:
    """The loops that run ``tree``, with isl's bounds and guards."""
    ctx = poly.ctx
    ctx.set_ast_build_detect_min_max(1)
    ctx.set_ast_build_exploit_nested_bounds(1)
    ctx.set_ast_build_atomic_upper_bound(1)
    ctx.set_ast_build_allow_or(1)
    schedule = isl.Schedule.read_from_str(ctx, _Yaml(poly, scop).document(tree))
    build = isl.AstBuild.from_context(poly.context)
    ast = build.node_from_schedule(schedule)
    return _Converter(scop, tree).convert(ast)


class _Yaml:
    """Writes isl's YAML form of a schedule tree."""

    def __init__(self, poly: Polyhedra, scop: Scop) -> None:
        self.poly = poly
        self.params = poly.params
        self.tuples = {s.name: f"{s.name}[{', '.join(s.iterators)}]" for s in scop.statements}
        self.scop = scop

    def document(self, tree: trees.Node) -> str:
        names = trees.statements(tree)
        pieces = "; ".join(f"{self.tuples[n]} : {self.scop.statement(n).domain}" for n in names)
        lines = [f'domain: "{self.params}{{ {pieces} }}"']
        lines += self._child(tree, 0)
        return "\n".join(lines)

    def _child(self, node: trees.Node, depth: int) -> list[str]:
        pad = "  " * depth
        body = self._node(node, depth + 1)
        return [f"{pad}child:", *body] if body else []

    def _node(self, node: trees.Node, depth: int) -> list[str]:
        pad = "  " * depth
        match node:
            case trees.Leaf():
                return []
            case trees.Loop():
                entries = "; ".join(f"{self.tuples[s]} -> [{e}]" for s, e in node.schedule)
                inner = "  " * (depth + 1)
                lines = [
                    f'{pad}mark: "{node.name}"',
                    f"{pad}child:",
                    f'{inner}schedule: "{self.params}[{{ {entries} }}]"',
                ]
                if len(node.schedule) > 1 and not any(
                    isinstance(n, trees.Loop) for n in trees.walk(node.body)
                ):
                    # An innermost loop over several statements: peel, rather than test inside.
                    lines.append(f'{inner}options: "{{ separate[0] }}"')
                return lines + self._child(node.body, depth + 1)
            case trees.Sequence():
                lines = [f"{pad}sequence:"]
                for child in node.children:
                    filters = "; ".join(self.tuples[s] for s in trees.statements(child))
                    lines.append(f'{pad}- filter: "{self.params}{{ {filters} }}"')
                    lines += self._child(child, depth + 1)
                return lines


@dataclass
class _Converter:
    """Turns isl's AST into ours.

    ``marks`` are the tree loops met so far on the way down. A loop stands right below its own
    mark, so it belongs to the last one: isl does without some loops, and it adds dimensions of
    its own where strided statements share a loop at different offsets.
    """

    scop: Scop
    tree: trees.Node

    def __post_init__(self) -> None:
        self.loops = {loop.name: loop for loop in trees.loops(self.tree)}
        self.limits: list[Affine] = []  # where the parts of the present tree loop begin and end
        self.parts = 0
        self.current: dict[str, Affine] = {}  # tree loops around, with their present value
        self.tiles = {
            name: tuple(_tiles(trees.enclosing(self.tree, name), name))
            for name in trees.statements(self.tree)
            if not _strided(self.scop.statement(name).domain)  # else isl may shift the loop
        }

    def convert(
        self,
        node: isl.AstNode,
        env: dict[str, Affine] | None = None,
        marks: tuple[trees.Loop, ...] = (),
    ) -> tuple[Node, ...]:
        env = env or {}
        kind = node.get_type()
        if kind == _NODE.mark:
            name = node.mark_get_id().get_name()
            return self.pieces(node.mark_get_node(), env, (*marks, self.loops[name]))
        if kind == _NODE.block:
            children = node.block_get_children()
            return tuple(
                n
                for k in range(children.n_ast_node())
                for n in self.convert(children.get_at(k), env, marks)
            )
        if kind == _NODE.if_:
            then = self.convert(node.if_get_then_node(), env, marks)
            condition = self.condition(node.if_get_cond(), env)
            self.limits += [c.expr for piece in condition for c in piece]
            result = _guarded(condition, then)
            if node.if_has_else_node():
                otherwise = self.convert(node.if_get_else_node(), env, marks)
                result += _guarded(_negate(condition), otherwise)
            return result
        if kind == _NODE.for_:
            return self.loop(node, env, marks)
        if kind == _NODE.user:
            return (self.instance(node.user_get_expr(), env),)
        raise InternalError(f"unexpected node in isl's AST: {node.to_C_str()}")

    def pieces(
        self, node: isl.AstNode, env: dict[str, Affine], marks: tuple[trees.Loop, ...]
    ) -> tuple[Node, ...]:
        """Everything that runs one loop of the tree; several parts are kept together."""
        around = self.limits, self.parts
        self.limits, self.parts = [], 0
        nodes = self.convert(node, env, marks)
        if self.parts > 1 or len(nodes) > 1:
            # A part that runs once has no loop: its limits are where its statements stand.
            once = [n for n in nodes if not isinstance(n, For)]
            self.limits += [a for n in instances(tuple(once)) for _, a in n.values]
            nodes = (Pieces(tuple(dict.fromkeys(self.limits)), nodes),)
        self.limits, self.parts = around
        return nodes

    def loop(
        self, node: isl.AstNode, env: dict[str, Affine], marks: tuple[trees.Loop, ...]
    ) -> tuple[Node, ...]:
        """One loop; several, each under its condition, where a bound is a choice of expressions."""
        iterator = node.for_get_iterator().id_get_id().get_name()
        if not marks or marks[-1].name in self.current:
            raise InternalError("isl made a loop that no loop of the tree asked for")
        pending = marks[-1]
        lasts: list[Case] = [(((),), Affine.constant(0))]
        step = 1
        if not node.for_is_degenerate():
            lasts = self.upper(node.for_get_cond(), iterator, env)
            step = node.for_get_inc().int_get_val().to_python()
        firsts = self.cases(node.for_get_init(), env)
        self.parts += len(firsts) * len(lasts)
        for when, bound in (*firsts, *lasts):
            self.limits += [*leaves(bound), *(c.expr for piece in when for c in piece)]
        inner = {**env, iterator: Affine.variable(pending.name)}
        result: tuple[Node, ...] = ()
        for when, first in firsts:
            if not node.for_is_degenerate():
                body = self.body(node, inner, marks, pending.name, inner[iterator])
                for also, last in lasts:
                    loop = For(pending.name, first, last, body, step, marks=pending.marks)
                    result += _guarded(conjunction([when, also]), (loop,))
            elif isinstance(first, Affine):
                body = self.body(node, {**env, iterator: first}, marks, pending.name, first)
                result += _guarded(when, body)
            else:
                body = self.body(node, inner, marks, pending.name, inner[iterator])
                once = For(pending.name, first, first, body, marks=(), comment=pending.name)
                result += _guarded(when, (once,))
        return result

    def body(
        self,
        node: isl.AstNode,
        env: dict[str, Affine],
        marks: tuple[trees.Loop, ...],
        name: str,
        value: Affine,
    ) -> tuple[Node, ...]:
        """The body of a loop, inside which the tree loop ``name`` stands at ``value``."""
        around, self.current = self.current, {**self.current, name: value}
        limits, parts = self.limits, self.parts
        self.limits, self.parts = [], 0
        nodes = self.convert(node.for_get_body(), env, marks)
        self.current, self.limits, self.parts = around, limits, parts
        return nodes

    def upper(self, cond: isl.AstExpr, iterator: str, env: dict[str, Affine]) -> list[Case]:
        op = cond.op_get_type()
        left = cond.op_get_arg(0)
        if left.get_type() != _EXPR.id or left.id_get_id().get_name() != iterator:
            raise InternalError(f"unexpected loop condition: {cond.to_C_str()}")
        if op not in (_OP.le, _OP.lt):
            raise InternalError(f"unexpected loop condition: {cond.to_C_str()}")
        reach = 0 if op == _OP.le else -1
        return [(when, _map(b, reach)) for when, b in self.cases(cond.op_get_arg(1), env)]

    def instance(self, call: isl.AstExpr, env: dict[str, Affine]) -> Instance:
        name = call.op_get_arg(0).id_get_id().get_name()
        iterators = self.scop.statement(name).iterators
        values = tuple(
            (it, self.affine(call.op_get_arg(k + 1), env)) for k, it in enumerate(iterators)
        )
        floors = tuple(
            (div, self.current[loop])
            for div, loop in self.tiles.get(name, ())
            if loop in self.current
        )
        return Instance(name, values, floors=floors)

    # -- expressions ---------------------------------------------------------------------------

    def affine(self, expr: isl.AstExpr, env: dict[str, Affine]) -> Affine:
        bound = self.bound(expr, env)
        if not isinstance(bound, Affine):
            raise InternalError(f"expected an affine expression: {expr.to_C_str()}")
        return bound

    def cases(self, expr: isl.AstExpr, env: dict[str, Affine]) -> list[Case]:
        """The bounds that ``expr`` chooses among with ``condition ? a : b``."""
        if expr.get_type() != _EXPR.op:
            return [(((),), self.bound(expr, env))]
        op = expr.op_get_type()
        args = [expr.op_get_arg(k) for k in range(expr.op_get_n_arg())]
        if op in (_OP.select, _OP.cond):
            test = self.condition(args[0], env)
            yes = [(conjunction([test, when]), b) for when, b in self.cases(args[1], env)]
            no = [(conjunction([_negate(test), when]), b) for when, b in self.cases(args[2], env)]
            return [(when, b) for when, b in yes + no if when]
        if op in (_OP.max, _OP.min):
            kind: Literal["max", "min"] = "max" if op == _OP.max else "min"
            choices = product(*(self.cases(a, env) for a in args))
            return [
                (conjunction([when for when, _ in c]), extreme(kind, tuple(b for _, b in c)))
                for c in choices
            ]
        return [(((),), self.bound(expr, env))]

    def bound(self, expr: isl.AstExpr, env: dict[str, Affine]) -> Bound:
        kind = expr.get_type()
        if kind == _EXPR.int:
            return Affine.constant(expr.int_get_val().to_python())
        if kind == _EXPR.id:
            name = expr.id_get_id().get_name()
            return env.get(name, Affine.variable(name))
        op = expr.op_get_type()
        args = [expr.op_get_arg(k) for k in range(expr.op_get_n_arg())]
        if op in (_OP.max, _OP.min):
            return extreme(
                "max" if op == _OP.max else "min", tuple(self.bound(a, env) for a in args)
            )
        if op == _OP.minus:
            return self.affine(args[0], env) * -1
        if op in (_OP.add, _OP.sub):
            left, right = self.bound(args[0], env), self.bound(args[1], env)
            if op == _OP.sub:
                if not isinstance(right, Affine):
                    raise InternalError(f"cannot subtract: {expr.to_C_str()}")
                right = right * -1
            if isinstance(left, Affine):
                left, right = right, left
            if not isinstance(right, Affine):
                raise InternalError(f"cannot add: {expr.to_C_str()}")
            return _map(left, right)
        if op == _OP.mul:
            left_affine, right_affine = self.affine(args[0], env), self.affine(args[1], env)
            if right_affine.is_constant:
                return left_affine * right_affine.const
            return right_affine * left_affine.const
        if op in (_OP.fdiv_q, _OP.pdiv_q, _OP.div):
            divisor = self.affine(args[1], env).const
            numerator = self.bound(args[0], env)
            return _floordiv(numerator, divisor)
        if op in (_OP.pdiv_r, _OP.zdiv_r):
            return self.affine(args[0], env).mod(self.affine(args[1], env).const)
        raise InternalError(f"isl expression that has no affine form: {expr.to_C_str()}")

    def condition(self, expr: isl.AstExpr, env: dict[str, Affine]) -> tuple[Piece, ...]:
        if expr.get_type() == _EXPR.int:
            return ((),) if expr.int_get_val().to_python() else ()
        op = expr.op_get_type()
        if op in (_OP.and_, _OP.and_then, _OP.or_, _OP.or_else):
            parts = [self.condition(expr.op_get_arg(k), env) for k in range(expr.op_get_n_arg())]
            if op in (_OP.and_, _OP.and_then):
                return conjunction(parts)
            return tuple(p for part in parts for p in part)
        return tuple(
            piece
            for when, left in self.cases(expr.op_get_arg(0), env)
            for also, right in self.cases(expr.op_get_arg(1), env)
            for piece in conjunction([when, also, self.comparison(expr, left, right)])
        )

    def comparison(self, expr: isl.AstExpr, left: Bound, right: Bound) -> tuple[Piece, ...]:
        op = expr.op_get_type()
        if op == _OP.lt:
            left, op = _map(left, 1), _OP.le
        elif op == _OP.gt:
            left, op = _map(left, -1), _OP.ge
        if op == _OP.eq:
            if isinstance(left, Affine) and isinstance(right, Affine):
                return ((Constraint(left - right, "eq"),),)
            return conjunction([_compare(left, right), _compare(right, left)])
        if op == _OP.le:
            return _compare(left, right)
        if op == _OP.ge:
            return _compare(right, left)
        raise InternalError(f"unexpected condition: {expr.to_C_str()}")


def _tiles(around: tuple[trees.Loop, ...], statement: str) -> Iterator[tuple[FloorDiv, str]]:
    """The floors of iterators that tile loops run over, with those loops."""
    for loop in around:
        expr = loop.expression(statement)
        if not expr.terms and not expr.const and len(expr.divs) == 1 and expr.divs[0][1] == 1:
            yield expr.divs[0][0], loop.name


def _strided(domain: Domain) -> bool:
    """Whether an iterator may be confined to multiples: an equality, or bounds by its own floor."""
    return any(
        c.kind == "eq" or any(n in div.inner.names() for n, _ in c.expr.terms)
        for piece in domain.pieces for c in piece for div, _ in c.expr.divs
    )  # fmt: skip


def _guarded(condition: tuple[Piece, ...], body: tuple[Node, ...]) -> tuple[Node, ...]:
    """``body`` under a condition, which may be none or impossible."""
    if not condition:
        return ()
    return body if condition == ((),) else (Guard(condition, body),)


def _compare(small: Bound, large: Bound) -> tuple[Piece, ...]:
    """``small <= large``, at most one side being a minimum or maximum of several."""
    if isinstance(small, Affine):
        return constraints_below(small, large)
    if isinstance(large, Affine):
        return constraints_above(large, small)
    parts = [_compare(a, large) for a in small.args]
    if small.kind == "max":
        return conjunction(parts)
    return tuple(p for part in parts for p in part)


def _map(bound: Bound, add: Affine | int) -> Bound:
    if isinstance(bound, Affine):
        return bound + add
    return Extreme(bound.kind, tuple(_map(a, add) for a in bound.args))


def _floordiv(bound: Bound, divisor: int) -> Bound:
    if isinstance(bound, Affine):
        return bound.floordiv(divisor)
    return Extreme(bound.kind, tuple(_floordiv(a, divisor) for a in bound.args))


def _negate(condition: tuple[Piece, ...]) -> tuple[Piece, ...]:
    result: list[tuple[Piece, ...]] = []
    for piece in condition:
        options: list[Piece] = []
        for c in piece:
            if c.kind == "ge":
                options.append((Constraint(-c.expr - 1),))
            else:
                options.append((Constraint(c.expr - 1),))
                options.append((Constraint(-c.expr - 1),))
        result.append(tuple(options))
    return conjunction(result)
