"""C statements as the small loop language of :mod:`perfkit.frontends.syntax`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pycparser import c_ast

from perfkit.frontends.c_headers import increment, is_id, isolate, loop_variables, parts_of, started
from perfkit.frontends.c_record import Guard, Header, Obligation
from perfkit.frontends.c_types import (
    ArrayType,
    ScalarType,
    Scope,
    cast,
    is_integer,
    location,
    refuse,
    smallest,
)
from perfkit.frontends.c_values import COMPARISONS, ValueReader
from perfkit.frontends.names import data_in
from perfkit.frontends.syntax import (
    Assign,
    Block,
    Declare,
    For,
    If,
    Name,
    Number,
    Operation,
    Stmt,
    Value,
)
from perfkit.ir.expr import ITEMSIZE

_REFUSED = {
    c_ast.While: ("while", "only counted for loops can be handled"),
    c_ast.DoWhile: ("do-while", "only counted for loops can be handled"),
    c_ast.Goto: ("goto", "jumps cannot be handled"),
    c_ast.Label: ("label", "jumps cannot be handled"),
    c_ast.Break: ("break", "jumps cannot be handled"),
    c_ast.Continue: ("continue", "jumps cannot be handled"),
    c_ast.Return: ("return", "jumps cannot be handled"),
    c_ast.Switch: ("switch", "jumps cannot be handled"),
    c_ast.Typedef: ("typedef", "cannot stand inside a region"),
    c_ast.StaticAssert: ("_Static_assert", "cannot stand inside a region"),
}
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "!=": "!=", "==": "=="}


class StatementReader(ValueReader):
    """Reads the statements of one region; refuses the first construct that does not fit."""

    def __init__(
        self, scope: Scope, functions: frozenset[str], nodes: Sequence[c_ast.Node],
        lines: Sequence[str],
    ) -> None:  # fmt: skip
        super().__init__(scope, functions)
        self.lines = lines
        self.loop_variables = loop_variables(nodes)
        self.nodes = nodes
        self.aliases: set[str] = set()

    def read(self) -> tuple[Stmt, ...]:
        return self.statements(self.nodes)

    def statements(self, nodes: Iterable[c_ast.Node]) -> tuple[Stmt, ...]:
        return tuple(s for node in nodes for s in self.statement(node))

    def block(self, node: c_ast.Node | None) -> tuple[Stmt, ...]:
        """A body: its declarations end with it."""
        if node is None:
            return ()
        self.scope = Scope(self.scope)
        try:
            if isinstance(node, c_ast.Compound):
                return self.statements(node.block_items or ())
            return self.statement(node)
        finally:
            parent = self.scope.parent
            assert parent is not None
            self.scope = parent

    def statement(self, node: c_ast.Node) -> tuple[Stmt, ...]:
        match node:
            case c_ast.For():
                return self._for(node)
            case c_ast.If():
                return self._if(node)
            case c_ast.Compound():
                return (Block(self.block(node)),)
            case c_ast.Assignment():
                return self._assignment(node)
            case c_ast.UnaryOp(op="p++" | "++" | "p--" | "--"):
                one = c_ast.Constant("int", "1", node.coord)
                op = "+=" if "+" in node.op else "-="
                return self._assignment(c_ast.Assignment(op, node.expr, one, node.coord))
            case c_ast.Decl():
                return self._declaration(node)
            case c_ast.DeclList():
                return self.statements(node.decls)
            case c_ast.ExprList():
                return self.statements(node.exprs)
            case c_ast.EmptyStatement() | c_ast.Pragma():
                return ()
            case c_ast.Cast(to_type=c_ast.Typename(type=c_ast.TypeDecl())) if isinstance(
                node.expr, c_ast.ID | c_ast.Constant
            ):
                return ()  # (void)x
            case c_ast.FuncCall():
                name = node.name.name if isinstance(node.name, c_ast.ID) else "a pointer"
                raise refuse(node, f"call of {name}()", "its effects are unknown")
        construct, why = _REFUSED.get(type(node), ("statement", "is not an assignment or a loop"))
        raise refuse(node, construct, why)

    def _text(self, node: c_ast.Node) -> str:
        """The source line, fit to stand in a comment of generated code."""
        line = location(node).line
        text = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        text = re.sub(r"/\*.*?(\*/|$)|//.*|^.*?\*/", "", text)
        return text.replace("/*", "").replace("*/", "").strip().rstrip("\\").strip()

    # -- assignments and declarations --------------------------------------------------------

    def _assignment(self, node: c_ast.Assignment) -> tuple[Stmt, ...]:
        before: tuple[Stmt, ...] = ()
        if node.op == "=" and isinstance(node.rvalue, c_ast.Assignment):
            before = self._assignment(node.rvalue)  # a = b = c
            value: Value = self.place(node.rvalue.lvalue)
        elif isinstance(node.lvalue, c_ast.ID) and self._is_index(node.lvalue):
            with self.indexing():
                value = self.value(node.rvalue)
        else:
            value = self.value(node.rvalue)
        target = self.place(node.lvalue, written=True)
        if node.op != "=":
            self.place(node.lvalue)
            value = self._compound(node, target, value)
        value = cast(value, target.dtype)
        return (*before, Assign(target, value, location(node), self._text(node)))

    def _is_index(self, node: c_ast.ID) -> bool:
        """Integer variables may be used in subscripts later on."""
        symbol = self.symbol(node)
        return isinstance(symbol.type, ScalarType) and is_integer(symbol.type.dtype)

    def _compound(self, node: c_ast.Assignment, target: Value, value: Value) -> Value:
        # Operands are put in place of syntax: the usual conversions are those of the operator.
        reader = _Given(self, {id(node.lvalue): target, id(node.rvalue): value})
        return reader.value(c_ast.BinaryOp(node.op[:-1], node.lvalue, node.rvalue, node.coord))

    def _declaration(self, node: c_ast.Decl) -> tuple[Stmt, ...]:
        if {"static", "extern"} & set(node.storage):
            raise refuse(node, node.name or "declaration", "static and extern outlive the region")
        if node.name is None:
            self.scope.enter_constants(node.type)
            return ()
        value = None
        if node.init is not None:
            if isinstance(node.init, c_ast.InitList):
                raise refuse(node, node.name, "an initialiser list cannot be handled")
            with self.indexing():  # an int may become a subscript; a float does no harm
                value = self.value(node.init)
        extents: list[Value] = []
        ctype = self.scope.resolve(node.type)
        while isinstance(ctype, ArrayType):
            if ctype.extent is None:
                raise refuse(node, node.name, "has no extent")
            extents.append(self.subscript(ctype.extent, node.name))
            ctype = ctype.element
        if not isinstance(ctype, ScalarType):
            raise refuse(node, node.name, "only numbers and arrays of numbers can be declared")
        if ctype.volatile:
            raise refuse(node, node.name, "is volatile")
        alias = self._alias(node.name)
        self.scope.declare(node, alias=alias)
        where = location(node)
        made: list[Stmt] = [Declare(alias, ctype.dtype, tuple(extents), where)]
        if value is not None:
            name = Name(ctype.dtype, alias)
            made.append(Assign(name, cast(value, ctype.dtype), where, self._text(node)))
        return tuple(made)

    def _alias(self, name: str) -> str:
        """The name itself, or a new one where it hides another variable."""
        hidden = self.scope.lookup(name)
        if hidden is None or hidden.kind != "object":
            return name
        taken = {*self.scope.visible(), *self.aliases}
        k = 2
        while f"{name}_{k}" in taken:
            k += 1
        self.aliases.add(f"{name}_{k}")
        return f"{name}_{k}"

    # -- control -----------------------------------------------------------------------------

    def _if(self, node: c_ast.If) -> tuple[Stmt, ...]:
        condition = self.condition(node.cond)
        path = self.path
        self.path = (*path, Guard(condition, True))
        then = self.block(node.iftrue)
        self.path = (*path, Guard(condition, False))
        otherwise = self.block(node.iffalse)
        self.path = path
        return (If(condition, then, otherwise, location(node)),)

    def _for(self, node: c_ast.For) -> tuple[Stmt, ...]:
        step_parts = parts_of(node.next)
        variable, step, extra_steps = self._step(node, step_parts)
        outer, path, active = self.scope, self.path, self.active
        self.scope = Scope(outer)
        try:
            before, first = self._first(node, variable)
            symbol = self.scope.lookup(variable)
            if symbol is None or not isinstance(symbol.type, ScalarType):
                raise refuse(node, "for", f"the loop variable {variable} is not an integer")
            dtype = symbol.type.dtype
            if not is_integer(dtype) or dtype == "bool":
                raise refuse(node, "for", f"the loop variable {variable} is not an integer")
            if symbol.type.volatile:
                raise refuse(node, variable, "is volatile")
            if self.counts(symbol):
                raise refuse(node, variable, "is the variable of two nested loops")
            first = cast(first, dtype)
            self.exact(first, node)
            last = self._last(node, node.cond, variable, dtype, first, step)
            array = data_in(first) or data_in(last)
            if array is not None:
                why = f"its range is not affine: it depends on data ({array}[...])"
                raise refuse(node, f"loop over {variable}", why)
            self.path = (*path, Header(variable, first, last, step))
            self.active = (*active, symbol)
            body = (*self.block(node.stmt), *self.statements(extra_steps))
        finally:
            self.scope, self.path, self.active = outer, path, active
        loop = For(variable, first, last, step, body, location(node))
        return (*before, loop)

    def _step(self, node: c_ast.For, parts: list[c_ast.Node]) -> tuple[str, int, list[c_ast.Node]]:
        """The loop variable, its step, and what else the header's third part does."""
        begun = started(node.init)
        for part in parts:
            found = increment(part, self.scope)
            if found is not None and (found[0] in begun or node.init is None):
                rest = [p for p in parts if p is not part]
                if found[1] == 0:
                    raise refuse(node, "for", f"the step of {found[0]} is 0")
                return (*found, rest)
        if not parts:
            raise refuse(node, "for", "has no step; write i++, i += 2 or the like")
        raise refuse(node, "for", "its step is not a constant added to the loop variable")

    def _first(self, node: c_ast.For, variable: str) -> tuple[tuple[Stmt, ...], Value]:
        """The statements that the header runs before the loop, and the first value."""
        before: list[Stmt] = []
        first: Value | None = None
        for part in parts_of(node.init):
            if isinstance(part, c_ast.Decl) and part.name == variable and part.init is not None:
                with self.indexing():
                    first = self.value(part.init)
                self.scope.declare(part)
            elif isinstance(part, c_ast.Assignment) and is_id(part.lvalue, variable):
                with self.indexing():
                    first = self.value(part.rvalue)
            else:
                before += self.statement(part)
        if first is None:
            raise refuse(node, "for", f"the loop variable {variable} has no first value here")
        return tuple(before), first

    def _last(
        self, node: c_ast.For, cond: c_ast.Node | None, variable: str, dtype: str,
        first: Value, step: int,
    ) -> Value:  # fmt: skip
        """The inclusive bound that a condition on the loop variable sets."""
        if not isinstance(cond, c_ast.BinaryOp):
            raise refuse(node, "for", f"its condition is not a bound of {variable}")
        if cond.op == "&&":
            a = self._last(node, cond.left, variable, dtype, first, step)
            b = self._last(node, cond.right, variable, dtype, first, step)
            one, two = cast(a, "int64"), cast(b, "int64")
            return Operation("int64", "min" if step > 0 else "max", (one, two))
        op, bound_node = cond.op, cond.right
        left, moved = isolate(cond.left, variable)
        if not left:
            op, bound_node = _FLIPPED.get(op, ""), cond.left
            left, moved = isolate(cond.right, variable)
        if not left or op not in COMPARISONS or op == "==":
            raise refuse(node, "for", f"its condition is not a bound of {variable}")
        for sign, term in moved:
            opposite = "-" if sign == "+" else "+"
            bound_node = c_ast.BinaryOp(opposite, bound_node, term, cond.coord)
        with self.indexing():
            bound = self.value(bound_node)
        if not is_integer(bound.dtype):
            raise refuse(node, "for", f"the bound of {variable} is not an integer")
        self._check_comparison(node, op, first, bound, dtype, step)
        if op == "!=" and abs(step) != 1:
            raise refuse(node, "for", "a condition with != needs a step of 1 or -1")
        upward = op in ("<", "<=") or (op == "!=" and step > 0)
        if upward != (step > 0):
            raise refuse(node, "for", f"{variable} moves away from its bound")
        if op in ("<=", ">="):
            return bound
        one_off = Operation(
            "int64", "sub" if upward else "add", (cast(bound, "int64"), Number("int64", 1))
        )
        return one_off

    def _check_comparison(
        self, node: c_ast.For, op: str, first: Value, bound: Value, dtype: str, step: int
    ) -> None:
        """Where the comparison or the counting could wrap, ask that it does not."""
        self.exact(bound, node)
        unsigned = dtype.startswith("u")
        compared_unsigned = "u" in (dtype[0], bound.dtype[0]) and (
            max(ITEMSIZE[dtype], ITEMSIZE[bound.dtype])
            == max((ITEMSIZE[d] for d in (dtype, bound.dtype) if d[0] == "u"), default=0)
        )
        if compared_unsigned and ITEMSIZE[dtype] >= 4:
            if not unsigned:
                self._oblige(first, node, f"{dtype} is compared as unsigned, and may be negative")
            elif not bound.dtype.startswith("u"):
                self._oblige(bound, node, "the bound is compared as unsigned, and may be negative")
        if unsigned and step < 0:
            if op == ">=":
                rest: Value = Operation("int64", "sub", (cast(bound, "int64"), Number("int64", 1)))
                self._oblige(rest, node, "an unsigned variable is always >= 0: the loop never ends")
            elif step != -1:
                raise refuse(node, "for", "an unsigned variable counts down by more than 1")
        if op == "!=":
            ends = (bound, first) if step > 0 else (first, bound)
            wide = tuple(cast(e, "int64") for e in ends)
            self._oblige(Operation("int64", "sub", wide), node, "the loop would pass its bound")
        if ITEMSIZE[dtype] < 4:
            self._narrow(node, bound, dtype, step)

    def _narrow(self, node: c_ast.For, bound: Value, dtype: str, step: int) -> None:
        """A narrow loop variable wraps when the value after the last does not fit."""
        wide = cast(bound, "int64")
        if step > 0:
            limit = Number("int64", (1 << (8 * ITEMSIZE[dtype] - (dtype[0] != "u"))) - 1 - step)
            rest = Operation("int64", "sub", (limit, wide))
        else:
            limit = Number("int64", -smallest(dtype) + step)
            rest = Operation("int64", "add", (wide, limit))
        self.record.obligations.append(
            Obligation(rest, self.path, location(node), "for", f"the bound does not fit {dtype}")
        )


class _Given(ValueReader):
    """Reads an operator whose operands have been read already."""

    def __init__(self, reader: ValueReader, known: dict[int, Value]) -> None:
        super().__init__(reader.outside, reader.defined_functions)
        self.known = known

    def value(self, node: c_ast.Node) -> Value:
        found = self.known.get(id(node))
        return super().value(node) if found is None else found
