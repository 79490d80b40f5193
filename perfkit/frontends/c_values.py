"""C expressions as typed values, with every conversion that C makes written out."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from pycparser import c_ast

from perfkit.frontends.c_record import Guard, Obligation, Path, Record, Reference, Use
from perfkit.frontends.c_types import (
    ArrayType,
    CType,
    OtherType,
    PointerType,
    ScalarType,
    Scope,
    Symbol,
    cast,
    character,
    common,
    integer_literal,
    is_integer,
    largest,
    location,
    promote,
    refuse,
    truth,
)
from perfkit.frontends.syntax import Element, Name, Number, Operation, Value
from perfkit.ir.expr import FUNCTIONS, ITEMSIZE

ARITHMETIC = {"+": "add", "-": "sub", "*": "mul"}
BITWISE = {"&": "and", "|": "or", "^": "xor"}
SHIFTS = {"<<": "shl", ">>": "shr"}
COMPARISONS = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}
RING = ("add", "sub", "mul", "neg", "shl")
INTEGER_ABS = {"abs": "int32", "labs": "int64", "llabs": "int64"}


class ValueReader:
    """Reads expressions at one place; :class:`StatementReader` moves the place."""

    def __init__(self, scope: Scope, defined_functions: frozenset[str]) -> None:
        self.outside = scope
        self.scope = Scope(scope)
        self.path: Path = ()
        self.loop_variables: frozenset[str] = frozenset()
        self.active: tuple[Symbol, ...] = ()
        self.defined_functions = defined_functions
        self.record = Record()
        self._index_depth = 0

    @contextmanager
    def indexing(self) -> Iterator[None]:
        """Names read inside are used in bounds, subscripts or integer conditions."""
        self._index_depth += 1
        try:
            yield
        finally:
            self._index_depth -= 1

    @contextmanager
    def guarded(self, condition: Value, holds: bool) -> Iterator[None]:
        """What is read inside is evaluated only where the condition has that outcome."""
        path, self.path = self.path, (*self.path, Guard(condition, holds))
        try:
            yield
        finally:
            self.path = path

    # -- names -------------------------------------------------------------------------------

    def symbol(self, node: c_ast.ID) -> Symbol:
        found = self.scope.lookup(node.name)
        if found is None:
            raise refuse(node, node.name, "is not declared")
        if found.kind in ("typedef", "function"):
            raise refuse(node, node.name, f"a {found.kind} cannot be used as a value here")
        return found

    def is_local(self, symbol: Symbol) -> bool:
        """Whether the region itself declares it."""
        return self.outside.lookup(symbol.name) is not symbol

    def counts(self, symbol: Symbol) -> bool:
        """Whether a loop around this place counts with it."""
        return any(symbol is other for other in self.active)

    def use(self, symbol: Symbol, *, written: bool = False) -> None:
        if self.is_local(symbol) or self.counts(symbol):
            return
        use = self.record.uses.setdefault(symbol.name, Use(symbol))
        use.written |= written
        use.index |= self._index_depth > 0

    def name(self, node: c_ast.ID, *, written: bool = False) -> Name:
        symbol = self.symbol(node)
        ctype = symbol.type
        if not isinstance(ctype, ScalarType):
            raise refuse(node, node.name, _words(ctype))
        if ctype.volatile:
            raise refuse(node, node.name, "is volatile")
        if self.counts(symbol):
            if written:
                raise refuse(node, node.name, "a loop variable is assigned in the body of its loop")
        elif node.name in self.loop_variables and not self.is_local(symbol):
            raise refuse(node, node.name, "a loop variable is used outside its loop")
        self.use(symbol, written=written)
        return Name(ctype.dtype, symbol.alias or node.name)

    # -- places ------------------------------------------------------------------------------

    def place(self, node: c_ast.Node, *, written: bool = False) -> Name | Element:
        """A variable or an element of an array."""
        if isinstance(node, c_ast.ID):
            return self.name(node, written=written)
        root, subscripts = self._subscripts(node)
        symbol = self.symbol(root)
        ctype: CType = symbol.type
        for _ in subscripts:
            match ctype:
                case PointerType(target=inner) | ArrayType(element=inner):
                    ctype = inner
                case _:
                    raise refuse(node, root.name, "has more subscripts than dimensions")
        if not isinstance(ctype, ScalarType):
            raise refuse(node, root.name, _words(ctype))
        if ctype.volatile:
            raise refuse(node, root.name, "is volatile")
        check_layout(symbol, node)
        self.use(symbol, written=written)
        indices = tuple(self.subscript(s, root.name) for s in subscripts)
        element = Element(ctype.dtype, symbol.alias or root.name, indices)
        self.record.references.append(Reference(element, self.path, location(node)))
        return element

    def _subscripts(self, node: c_ast.Node) -> tuple[c_ast.ID, list[c_ast.Node]]:
        subscripts: list[c_ast.Node] = []
        while not isinstance(node, c_ast.ID):
            match node:
                case c_ast.ArrayRef():
                    subscripts.insert(0, node.subscript)
                    node = node.name
                case c_ast.UnaryOp(op="*"):
                    node, offset = self._offset(node.expr)
                    subscripts.insert(0, offset)
                case c_ast.StructRef():
                    raise refuse(node, "struct member", "only plain arrays and variables are known")
                case c_ast.Cast():
                    raise refuse(node, "cast of a pointer", "hides what is accessed")
                case _:
                    raise refuse(node, _construct(node), "is not a variable or an array element")
        return node, subscripts

    def _offset(self, node: c_ast.Node) -> tuple[c_ast.Node, c_ast.Node]:
        """``*(A + e)`` is ``A[e]``."""
        if isinstance(node, c_ast.BinaryOp) and node.op == "+":
            for base, offset in ((node.left, node.right), (node.right, node.left)):
                if isinstance(self._type(base), PointerType | ArrayType):
                    return base, offset
        return node, c_ast.Constant("int", "0", node.coord)

    def _type(self, node: c_ast.Node) -> CType:
        """The type of a variable or of a row of an array."""
        if isinstance(node, c_ast.ArrayRef):
            match self._type(node.name):
                case PointerType(target=inner) | ArrayType(element=inner):
                    return inner
        if isinstance(node, c_ast.ID):
            symbol = self.scope.lookup(node.name)
            if symbol is not None:
                return symbol.type
        return OtherType("an expression")

    def subscript(self, node: c_ast.Node, array: str) -> Value:
        with self.indexing():
            value = promote(self.value(node))
        if not is_integer(value.dtype):
            raise refuse(node, f"subscript of {array}", "is not an integer")
        if ITEMSIZE[value.dtype] == 8:
            self._ring(value, value.dtype, node)  # addresses wrap as 64-bit arithmetic does
        else:
            self.exact(value, node)
        return value

    # -- faithfulness of integer arithmetic ----------------------------------------------------

    def exact(self, value: Value, node: c_ast.Node) -> None:
        """Ask that C's result be the mathematical one: unsigned arithmetic and casts wrap."""
        match value:
            case Operation(op="cast", args=(arg,)) if is_integer(arg.dtype):
                if is_integer(value.dtype) and value.dtype != "bool" and arg.dtype != "bool":
                    self._within(arg, arg.dtype, value.dtype, node)
                self.exact(arg, node)
            case Operation(op=op) if op in RING and value.dtype.startswith("u"):
                self._within(value, "int64", value.dtype, node)
                self._ring(value, value.dtype, node)
            case Operation(args=args):
                for arg in args:
                    self.exact(arg, node)

    def _ring(self, value: Value, dtype: str, node: c_ast.Node) -> None:
        """Sums and products modulo 2^n may wrap on the way to a result that does not."""
        match value:
            case Operation(op=op, args=args) if op in RING and value.dtype == dtype:
                for arg in args:
                    self._ring(arg, dtype, node)
            case Operation(op="cast", args=(arg,)) if is_integer(arg.dtype) and (
                ITEMSIZE[arg.dtype] <= ITEMSIZE[dtype] and value.dtype == dtype
            ):
                self.exact(arg, node)
            case _:
                self.exact(value, node)

    def _within(self, value: Value, source: str, target: str, node: c_ast.Node) -> None:
        signed = not source.startswith("u")
        if signed and target.startswith("u"):
            self._oblige(value, node, "an unsigned value would be negative and wrap around")
        if ITEMSIZE[source] > ITEMSIZE[target] or (
            ITEMSIZE[source] == ITEMSIZE[target] and not signed and not target.startswith("u")
        ):
            bound = Number("int64", largest(target))
            rest = Operation("int64", "sub", (bound, value))
            self._oblige(rest, node, f"a value does not fit {target}")
            if signed and not target.startswith("u"):
                below = Operation("int64", "add", (value, Number("int64", largest(target) + 1)))
                self._oblige(below, node, f"a value does not fit {target}")

    def _oblige(self, value: Value, node: c_ast.Node, why: str) -> None:
        self.record.obligations.append(
            Obligation(value, self.path, location(node), "integer arithmetic", why)
        )

    # -- values ------------------------------------------------------------------------------

    def condition(self, node: c_ast.Node) -> Value:
        """A truth value; integer comparisons in it may become bounds of the domain."""
        match node:
            case c_ast.BinaryOp(op="&&" | "||"):
                left = self.condition(node.left)
                with self.guarded(left, node.op == "&&"):
                    right = self.condition(node.right)
                return Operation("bool", "land" if node.op == "&&" else "lor", (left, right))
            case c_ast.UnaryOp(op="!"):
                return Operation("bool", "not", (self.condition(node.expr),))
        if not self._all_integers(node):
            return truth(self.value(node))
        with self.indexing():
            value = truth(self.value(node))
        self.exact(value, node)
        return value

    def _all_integers(self, node: c_ast.Node) -> bool:
        """Whether a condition reads integer variables only, so that it may be affine."""
        if isinstance(node, c_ast.ID):
            symbol = self.scope.lookup(node.name)
            return (
                symbol is not None
                and isinstance(symbol.type, ScalarType)
                and is_integer(symbol.type.dtype)
            )
        if isinstance(node, c_ast.ArrayRef | c_ast.FuncCall | c_ast.StructRef):
            return False
        if isinstance(node, c_ast.Constant) and node.type in ("float", "double"):
            return False
        return all(self._all_integers(child) for _, child in node.children())

    def value(self, node: c_ast.Node) -> Value:
        match node:
            case c_ast.Constant():
                return _literal(node)
            case c_ast.ID():
                known = self.scope.lookup(node.name)
                if known is not None and known.kind == "constant":
                    return Number("int32", known.value)
                return self.name(node)
            case c_ast.ArrayRef() | c_ast.UnaryOp(op="*") | c_ast.StructRef():
                return self.place(node)
            case c_ast.Cast():
                return self._cast(node)
            case c_ast.UnaryOp():
                return self._unary(node)
            case c_ast.BinaryOp():
                return self._binary(node)
            case c_ast.TernaryOp():
                return self._ternary(node)
            case c_ast.FuncCall():
                return self._call(node)
            case c_ast.Assignment():
                raise refuse(node, "assignment", "stands inside an expression")
        raise refuse(node, _construct(node), "cannot be part of an expression here")

    def _cast(self, node: c_ast.Cast) -> Value:
        target = self.scope.resolve(node.to_type)
        if not isinstance(target, ScalarType):
            raise refuse(node, "cast", _words(target))
        return cast(self.value(node.expr), target.dtype)

    def _unary(self, node: c_ast.UnaryOp) -> Value:
        if node.op == "sizeof":
            return self._sizeof(node)
        if node.op == "!":
            return Operation("bool", "not", (truth(self.value(node.expr)),))
        if node.op not in ("-", "+", "~"):
            why = "takes an address" if node.op == "&" else "changes a variable in an expression"
            raise refuse(node, f"operator {node.op.lstrip('p')}", why)
        arg = promote(self.value(node.expr))
        if node.op == "+":
            return arg
        if node.op == "~":
            return Operation(arg.dtype, "invert", (arg,))
        if isinstance(arg, Number) and not arg.dtype.startswith("u") and arg.value != 0:
            return Number(arg.dtype, -arg.value)
        return Operation(arg.dtype, "neg", (arg,))

    def _sizeof(self, node: c_ast.UnaryOp) -> Value:
        ctype: CType = OtherType("an expression")
        if isinstance(node.expr, c_ast.Typename):
            ctype = self.scope.resolve(node.expr)
        elif isinstance(node.expr, c_ast.ID):
            ctype = self.symbol(node.expr).type
        if isinstance(ctype, ScalarType):
            return Number("uint64", ITEMSIZE[ctype.dtype])
        raise refuse(node, "sizeof", "only the size of a number's type is known")

    def _binary(self, node: c_ast.BinaryOp) -> Value:
        op = node.op
        if op in ("&&", "||"):
            return self.condition(node)
        left, right = promote(self.value(node.left)), promote(self.value(node.right))
        if op in SHIFTS:
            return Operation(left.dtype, SHIFTS[op], (left, cast(right, left.dtype)))
        dtype = common(left.dtype, right.dtype)
        args = (cast(left, dtype), cast(right, dtype))
        if op in COMPARISONS:
            return Operation("bool", COMPARISONS[op], args)
        if op in ARITHMETIC:
            return Operation(dtype, ARITHMETIC[op], args)
        if op == "/":
            return Operation(dtype, "tdiv" if is_integer(dtype) else "div", args)
        if is_integer(dtype) and op == "%":
            return Operation(dtype, "tmod", args)
        if is_integer(dtype) and op in BITWISE:
            return Operation(dtype, BITWISE[op], args)
        raise refuse(node, f"operator {op}", f"has no meaning on {dtype}")

    def _ternary(self, node: c_ast.TernaryOp) -> Value:
        condition = self.condition(node.cond)
        with self.guarded(condition, True):
            a = self.value(node.iftrue)
        with self.guarded(condition, False):
            b = self.value(node.iffalse)
        dtype = common(a.dtype, b.dtype)
        return extreme(condition, cast(a, dtype), cast(b, dtype))

    def _call(self, node: c_ast.FuncCall) -> Value:
        name = node.name.name if isinstance(node.name, c_ast.ID) else "a pointer"
        args = [self.value(a) for a in node.args.exprs] if node.args is not None else []
        construct = f"call of {name}()"
        if name in self.defined_functions:
            raise refuse(node, construct, "only functions of the C library's math can be called")
        if name in INTEGER_ABS and len(args) == 1:
            dtype = INTEGER_ABS[name]
            return Operation(dtype, "call", (cast(args[0], dtype),), "abs")
        dtype = "float64"
        if name not in FUNCTIONS and name.endswith("f") and name[:-1] in FUNCTIONS:
            name, dtype = name[:-1], "float32"
        if name not in FUNCTIONS or name == "abs":
            raise refuse(node, construct, "only functions of the C library's math can be called")
        if len(args) != FUNCTIONS[name]:
            raise refuse(node, construct, f"takes {FUNCTIONS[name]} arguments, not {len(args)}")
        return Operation(dtype, "call", tuple(cast(a, dtype) for a in args), name)


def extreme(condition: Value, a: Value, b: Value) -> Value:
    """``condition ? a : b``, as min or max where it is exactly that."""
    dtype = a.dtype
    if isinstance(condition, Operation) and set(condition.args) == {a, b} and a != b:
        op = condition.op
        if is_integer(dtype):
            op = {"le": "lt", "ge": "gt"}.get(op, op)
        if op in ("lt", "gt"):
            if condition.args[0] == a:
                return Operation(dtype, "min" if op == "lt" else "max", (a, b))
            return Operation(dtype, "max" if op == "lt" else "min", (a, b))
    return Operation(dtype, "select", (condition, a, b))


def check_layout(symbol: Symbol, node: c_ast.Node) -> None:
    """Refuse arrays whose rows do not follow each other in memory."""
    ctype = symbol.type
    inner: CType = OtherType("nothing")
    if isinstance(ctype, PointerType):
        inner = ctype.target
    elif isinstance(ctype, ArrayType):
        inner = ctype.element
    while isinstance(inner, ArrayType):
        inner = inner.element
    if isinstance(inner, PointerType):
        raise refuse(
            node, symbol.name, "is a pointer to pointers; its rows may lie anywhere in memory"
        )


def _literal(node: c_ast.Constant) -> Number:
    text = node.value
    if node.type == "char":
        value = character(text)
        if value is not None:
            return Number("int32", value)
    elif "int" in node.type:
        return Number(*reversed(integer_literal(text)))  # type: ignore[arg-type]
    elif node.type in ("float", "double"):
        hexadecimal = text.lower().startswith("0x")
        digits = text.rstrip("fF") if not hexadecimal or "p" in text.lower() else text
        number = float.fromhex(digits) if hexadecimal else float(digits)
        if text[-1] in "fF" and digits != text:
            return Number("float32", _single(number))
        return Number("float64", number)
    raise refuse(node, f"literal {text}", f"a {node.type} has no counterpart")


def _single(number: float) -> float:
    """The nearest float: ``0.1f`` is not 0.1."""
    try:
        return float(struct.unpack("f", struct.pack("f", number))[0])
    except OverflowError:
        return math.inf


def _words(ctype: CType) -> str:
    match ctype:
        case OtherType(words=words):
            return f"its type ({words}) cannot be handled"
        case PointerType():
            return "a pointer is used as a value"
        case ArrayType():
            return "an array is used as a value; only single elements can be read or written"
    return "cannot be used like this"


_CONSTRUCTS = {
    "CompoundLiteral": "compound literal", "InitList": "initialiser list",
    "ExprList": "comma operator", "StructRef": "struct member", "FuncCall": "function call",
    "BinaryOp": "pointer arithmetic", "TernaryOp": "conditional expression",
}  # fmt: skip


def _construct(node: c_ast.Node) -> str:
    return _CONSTRUCTS.get(type(node).__name__, type(node).__name__)
