"""Statements of Python functions, turned into the small loop language."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from perfkit.frontends import promotion
from perfkit.frontends.promotion import WEAK_INT, Type, Typed
from perfkit.frontends.python_scan import Scan, pairs
from perfkit.frontends.python_values import Names, ValueTranslator
from perfkit.frontends.syntax import (
    Assign,
    Block,
    Declare,
    Element,
    For,
    If,
    Name,
    Number,
    Operation,
    Stmt,
    Value,
)

MAX_ROUNDS = 10
_REMEDIES: Mapping[type[ast.AST], tuple[str, str]] = {
    ast.While: ("while loop", "the number of iterations is unknown; use for ... in range(...)"),
    ast.Break: ("break", "the number of iterations is unknown; use a condition instead"),
    ast.Continue: ("continue", "put the rest of the body under a condition instead"),
    ast.With: ("with statement", "move it out of the function"),
    ast.Try: ("try statement", "move it out of the function"),
    ast.Raise: ("raise", "check before the call"),
    ast.FunctionDef: ("nested function", "write its body where it is called"),
    ast.Return: ("return", "only the last statement of the function may return"),
    ast.Import: ("import", "move it to the top of the file"),
    ast.ImportFrom: ("import", "move it to the top of the file"),
    ast.Global: ("global", "pass the value as an argument"),
    ast.Nonlocal: ("nonlocal", "pass the value as an argument"),
    ast.Delete: ("del", "leave it out"),
    ast.Assert: ("assert", "only conditions on sizes before the first loop can be asserted"),
}


class StatementTranslator(ValueTranslator):
    """Translates a function body; types of variables are found by repeating until they settle."""

    def __init__(self, names: Names, file: str, offset: int) -> None:
        super().__init__(names, file, offset)
        self.assumptions: list[Value] = []
        self.found: dict[str, Type] = {}
        self.aliases: frozenset[str] = frozenset()
        self.temporaries = 0

    def translate(
        self, tree: ast.FunctionDef, scanned: Scan, initial: Mapping[str, Typed]
    ) -> tuple[tuple[Stmt, ...], list[tuple[str, str]]]:
        """The region's body, and the name and dtype of every result."""
        self.aliases = frozenset(scanned.aliases)
        for _ in range(MAX_ROUNDS):
            self.found, self.assumptions, self.temporaries = {}, [], 0
            body, results = self.once(tree, initial)
            if self.found == self.names.types:
                return body, results
            self.names.types = self.found
        self.refuse(tree, "the types of its variables do not settle", f"def {tree.name}")

    def once(
        self, tree: ast.FunctionDef, initial: Mapping[str, Typed]
    ) -> tuple[tuple[Stmt, ...], list[tuple[str, str]]]:
        where = self.location(tree)
        start = [
            self.store(tree, self.variable(name), value, f"{name} = {name}", name)
            for name, value in initial.items()
        ]
        statements = list(tree.body)
        results: list[tuple[str, str]] = []
        ending: list[Stmt] = []
        if statements and isinstance(statements[-1], ast.Return):
            results, ending = self.returned(statements.pop(), initial)
        body = self.body(statements, top=True)
        if results or ending:  # again, with the types that the body gave
            results, ending = self.returned(tree.body[-1], initial)
        declared = [
            Declare(place.name, self.names.types.get(name, WEAK_INT).dtype, (), where)
            for name, place in self.names.variables.items()
        ]
        return (*declared, *start, *body, *ending), results

    def returned(
        self, node: ast.stmt, initial: Mapping[str, Typed]
    ) -> tuple[list[tuple[str, str]], list[Stmt]]:
        assert isinstance(node, ast.Return)
        match node.value:
            case None | ast.Constant(value=None):
                return [], []
            case ast.Tuple(elts=parts):
                values = list(parts)
            case _:
                values = [node.value]
        results: list[tuple[str, str]] = []
        ending: list[Stmt] = []
        taken = {*self.names.arrays, *self.names.values, *initial, *self.names.natural}
        taken |= {place.name for place in self.names.variables.values()}
        for k, part in enumerate(values):
            if isinstance(part, ast.Name) and part.id in self.names.arrays:
                self.refuse(node, "arrays are changed in place; return numbers only")
            typed = self.value(part)
            name = "result" if len(values) == 1 else f"result_{k}"
            while name in taken:
                name += "_"
            results.append((name, typed.dtype))
            target = Name(typed.dtype, name)
            ending.append(Assign(target, typed.value, self.location(node), ast.unparse(node)))
        return results, ending

    # -- statements --------------------------------------------------------------------------

    def body(self, statements: Sequence[ast.stmt], top: bool = False) -> tuple[Stmt, ...]:
        return tuple(s for node in statements for s in self.statement(node, top))

    def statement(self, node: ast.stmt, top: bool) -> list[Stmt]:
        match node:
            case ast.Pass() | ast.Expr(value=ast.Constant()):
                return []
            case ast.Assign(targets=targets, value=value):
                return self.assign(node, targets, value, top)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                return self.assign(node, [target], value, top)
            case ast.AnnAssign():
                return []
            case ast.AugAssign():
                return [self.augment(node)]
            case ast.For():
                return [self.loop(node)]
            case ast.If(test=test, body=body, orelse=orelse):
                where = self.location(node)
                return [If(self.condition(test), self.body(body), self.body(orelse), where)]
            case ast.Assert(test=test) if top:
                self.assumptions.append(self.condition(test))
                return []
        construct, remedy = _REMEDIES.get(
            type(node), ("", "this statement cannot be optimized; use loops and assignments")
        )
        self.refuse(node, remedy, construct)

    def assign(
        self, node: ast.stmt, targets: Sequence[ast.expr], value: ast.expr, top: bool
    ) -> list[Stmt]:
        work = [pair for target in targets for pair in pairs(target, value)]
        work = [pair for pair in work if not self.is_alias(node, *pair, top)]
        if len(work) <= 1 or not _depends(work):
            return [self.one(node, target, self.value(source)) for target, source in work]
        # The right-hand sides are all evaluated before the first target changes.
        values = [self.value(source) for _, source in work]
        block: list[Stmt] = []
        saved: list[Typed] = []
        for typed in values:
            self.temporaries += 1
            name = Name(typed.dtype, f"new_{self.temporaries}")
            block.append(Declare(name.name, typed.dtype, (), self.location(node)))
            block.append(Assign(name, typed.value, self.location(node), ast.unparse(node)))
            saved.append(Typed(name, typed.weak))
        block += [self.one(node, t, v) for (t, _), v in zip(work, saved, strict=True)]
        return [Block(tuple(block))]

    def is_alias(self, node: ast.stmt, target: ast.expr, value: ast.expr, top: bool) -> bool:
        """Names of array extents are known from the scan; nothing is left to do for them."""
        match target:
            case ast.Name(id=name):
                return name in self.aliases
            case ast.Tuple(elts=parts):
                if top and all(isinstance(p, ast.Name) and p.id in self.aliases for p in parts):
                    return True
                self.refuse(node, "only as many scalars as there are names can be unpacked")
        return False

    def one(self, node: ast.stmt, target: ast.expr, value: Typed) -> Stmt:
        text = ast.unparse(node)
        match target:
            case ast.Name(id=name):
                return self.store(node, self.variable(name), value, text, name)
            case ast.Subscript():
                element = self.element(target)
                return self.store(node, element, value, text)
        self.refuse(node, "only variables and array elements can be assigned")

    def variable(self, name: str) -> Name:
        kind = self.names.types.get(name, WEAK_INT)
        return Name(kind.dtype, self.names.variables[name].name)

    def store(
        self, node: ast.AST, target: Name | Element, value: Typed, text: str, name: str = ""
    ) -> Stmt:
        if name:
            with self.conflicts(node):
                known = self.found.get(name)
                self.found[name] = (
                    value.type if known is None else promotion.join(known, value.type)
                )
        converted = promotion.convert(value.value, target.dtype)
        return Assign(target, converted, self.location(node), text)

    def augment(self, node: ast.AugAssign) -> Stmt:
        current = self.value(node.target)
        value = self.arithmetic(node, node.op, current, self.value(node.value))
        return self.one(node, node.target, value)

    # -- loops -------------------------------------------------------------------------------

    def loop(self, node: ast.For) -> Stmt:
        where = self.location(node)
        if node.orelse:
            self.refuse(node, "put the else part after the loop", "for ... else")
        if not isinstance(node.target, ast.Name):
            self.refuse(node.target, "a loop needs one plain variable")
        variable = node.target.id
        if variable in self.names.values:
            self.refuse(node, "is in use already; rename it", f"loop over {variable}")
        first, last, step = self.range(node.iter)
        start = self.natural(first if step > 0 else last)
        self.names.values[variable] = Typed(Name("int64", variable), True)
        self.names.natural |= {variable} if start else set()
        body = self.body(node.body)
        del self.names.values[variable]
        self.names.natural.discard(variable)
        return For(variable, first, last, step, body, where)

    def range(self, node: ast.expr) -> tuple[Value, Value, int]:
        """First and last (inclusive) value and step."""
        match node:
            case ast.Call(args=[ast.Call() as inner]) if self.function(node) is reversed:
                return self.reverse(*self.range(inner))
            case ast.Call(args=args) if self.function(node) is range and 1 <= len(args) <= 3:
                if node.keywords:
                    self.refuse(node, "range takes no keywords")
                values = [self.integer(a) for a in args]
                first = values[0] if len(values) > 1 else Number("int64", 0)
                stop = values[1] if len(values) > 1 else values[0]
                step = values[2] if len(values) > 2 else Number("int64", 1)
                if not isinstance(step, Number) or step.value == 0:
                    self.refuse(node, "the step must be a constant other than zero")
                by = int(step.value)
                return first, _plus(stop, -1 if by > 0 else 1), by
        self.refuse(node, "loops run over range(...) only", f"for ... in {ast.unparse(node)}")

    def reverse(self, first: Value, last: Value, step: int) -> tuple[Value, Value, int]:
        if abs(step) == 1:
            return last, first, -step
        # first + step * floor((last - first) / step): the last value that is reached
        span = Operation("int64", "sub", (last, first))
        count = Operation("int64", "floordiv", (span, Number("int64", step)))
        way = Operation("int64", "mul", (count, Number("int64", step)))
        return Operation("int64", "add", (first, way)), first, -step

    def integer(self, node: ast.expr) -> Value:
        typed = self.value(node)
        if typed.type.kind != "int":
            self.refuse(node, f"a range needs integers, not {typed.type}")
        return promotion.convert(typed.value, "int64")


def _plus(value: Value, number: int) -> Value:
    if isinstance(value, Number):
        return Number(value.dtype, int(value.value) + number)
    match value:
        case Operation(op="add", args=(inner, Number(value=k))):
            total = int(k) + number
            return _plus(inner, total) if total else inner
        case Operation(op="sub", args=(inner, Number(value=k))):
            total = number - int(k)
            return _plus(inner, total) if total else inner
    op = "add" if number > 0 else "sub"
    return Operation(value.dtype, op, (value, Number(value.dtype, abs(number))))


def _depends(work: Sequence[tuple[ast.expr, ast.expr]]) -> bool:
    """Whether an earlier target of a parallel assignment matters to what comes later."""
    changed: set[str] = set()
    for target, source in work:
        read = {n.id for n in ast.walk(source) if isinstance(n, ast.Name)}
        base = target
        while isinstance(base, ast.Subscript):
            read |= {n.id for n in ast.walk(base.slice) if isinstance(n, ast.Name)}
            base = base.value
        if read & changed:
            return True
        if isinstance(base, ast.Name):
            changed.add(base.id)
    return False
