"""C's types, scopes and conversions, as far as affine regions need them (LP64 targets)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pycparser import c_ast

from perfkit.errors import Location, UnsupportedError
from perfkit.frontends.syntax import Number, Operation, Value
from perfkit.ir.expr import FLOATS, ITEMSIZE


@dataclass(frozen=True, slots=True)
class ScalarType:
    """``spelling`` is the type's name in C without qualifiers, for pointers to it."""

    dtype: str
    spelling: str
    const: bool = False
    volatile: bool = False


@dataclass(frozen=True, slots=True)
class PointerType:
    """``extent`` is the one that a parameter declared as an array names; C does not enforce it."""

    target: CType
    restrict: bool = False
    extent: c_ast.Node | None = None


@dataclass(frozen=True, slots=True)
class ArrayType:
    """``extent`` is the expression between the brackets, None for ``[]``."""

    element: CType
    extent: c_ast.Node | None
    restrict: bool = False


@dataclass(frozen=True, slots=True)
class OtherType:
    """A type that no region can use; ``words`` says which."""

    words: str


CType = ScalarType | PointerType | ArrayType | OtherType

_SPELLINGS = {
    "bool": "_Bool", "int8": "signed char", "uint8": "unsigned char", "int16": "short",
    "uint16": "unsigned short", "int32": "int", "uint32": "unsigned int", "int64": "long",
    "uint64": "unsigned long", "float32": "float", "float64": "double",
}  # fmt: skip
INT = ScalarType("int32", "int")
CONVERSION_RANK = ("int32", "uint32", "int64", "uint64", "float32", "float64")
NUMBER_OF_BITS = {d: 8 * s for d, s in ITEMSIZE.items()}


@dataclass(frozen=True, slots=True)
class Symbol:
    """What a name stands for.

    ``storage``: 'parameter' and 'local' (automatic), 'static' (of a function) or 'global'.
    ``value`` is set for an enumeration constant. ``alias`` is the name in the IR where it differs.
    """

    name: str
    kind: Literal["object", "typedef", "constant", "function"]
    type: CType
    storage: Literal["parameter", "local", "static", "global"] = "global"
    line: int = 0
    value: int = 0
    alias: str = ""


class Scope:
    """Names visible at a place of the program; inner scopes hide outer ones."""

    def __init__(self, parent: Scope | None = None) -> None:
        self.parent = parent
        self.names: dict[str, Symbol] = {}

    def lookup(self, name: str) -> Symbol | None:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return None

    def visible(self) -> Iterator[str]:
        scope: Scope | None = self
        while scope is not None:
            yield from scope.names
            scope = scope.parent

    def declare(
        self, node: c_ast.Decl | c_ast.Typedef, *, parameter: bool = False, alias: str = ""
    ) -> Symbol | None:
        """Enter a declaration, and the enumeration constants that it defines."""
        self.enter_constants(node.type)
        if node.name is None:
            return None
        kind: Literal["object", "typedef", "function"] = "object"
        if isinstance(node, c_ast.Typedef):
            kind = "typedef"
        elif isinstance(node.type, c_ast.FuncDecl):
            kind = "function"
        storage: Literal["parameter", "local", "static", "global"] = "local"
        if parameter:
            storage = "parameter"
        elif self.parent is None or "extern" in node.storage:
            storage = "global"
        elif "static" in node.storage:
            storage = "static"
        ctype = self.resolve(node.type)
        if parameter and isinstance(ctype, ArrayType):
            # A parameter's array type is adjusted to a pointer (C11 6.7.6.3).
            ctype = PointerType(ctype.element, ctype.restrict, ctype.extent)
        line = node.coord.line if node.coord else 0
        symbol = Symbol(node.name, kind, ctype, storage, line, alias=alias)
        self.names[node.name] = symbol
        return symbol

    def enter_constants(self, node: c_ast.Node) -> None:
        for child in _walk(node):
            if isinstance(child, c_ast.Enum) and child.values is not None:
                value = -1
                for entry in child.values.enumerators:
                    known = None if entry.value is None else self.constant(entry.value)
                    value = value + 1 if known is None else known
                    self.names[entry.name] = Symbol(entry.name, "constant", INT, value=value)

    def resolve(self, node: c_ast.Node) -> CType:
        """The type that a declarator describes."""
        match node:
            case c_ast.TypeDecl():
                inner = self.resolve(node.type)
                if "_Atomic" in node.quals:
                    return OtherType("_Atomic")
                if isinstance(inner, ScalarType):
                    return replace(
                        inner,
                        const=inner.const or "const" in node.quals,
                        volatile=inner.volatile or "volatile" in node.quals,
                    )
                return inner
            case c_ast.PtrDecl():
                if "volatile" in node.quals:
                    return OtherType("volatile")
                return PointerType(self.resolve(node.type), "restrict" in node.quals)
            case c_ast.ArrayDecl():
                element = self.resolve(node.type)
                return ArrayType(element, node.dim, "restrict" in (node.dim_quals or ()))
            case c_ast.IdentifierType():
                return self._basic(list(node.names))
            case c_ast.Typename():
                return self.resolve(node.type)
            case c_ast.Struct():
                return OtherType("a struct")
            case c_ast.Union():
                return OtherType("a union")
            case c_ast.Enum():
                return ScalarType("uint32", "unsigned int")
            case c_ast.FuncDecl():
                return OtherType("a function")
        return OtherType(type(node).__name__)

    def _basic(self, names: list[str]) -> CType:
        if len(names) == 1:
            symbol = self.lookup(names[0])
            if symbol is not None and symbol.kind == "typedef":
                return symbol.type
        for bad in ("_Complex", "__int128", "void", "_Float16", "__float128", "_Float128"):
            if bad in names:
                return OtherType(bad)
        if "double" in names:
            return OtherType("long double") if "long" in names else _scalar("float64")
        if "float" in names:
            return _scalar("float32")
        if "_Bool" in names:
            return _scalar("bool")
        sign = "u" if "unsigned" in names else ""
        if "char" in names:
            if not sign and "signed" not in names:
                return ScalarType("int8", "char")
            return _scalar(f"{sign}int8")
        if "short" in names:
            return _scalar(f"{sign}int16")
        if "long" in names:
            found = _scalar(f"{sign}int64")
            if names.count("long") == 2:
                found = replace(found, spelling="unsigned long long" if sign else "long long")
            return found
        if {"int", "unsigned", "signed"} & set(names):
            return _scalar(f"{sign}int32")
        return OtherType(" ".join(names))

    def constant(self, node: c_ast.Node) -> int | None:
        """The value of an integer constant expression, None when it is not one."""
        match node:
            case c_ast.Constant() if "int" in node.type:
                return integer_literal(node.value)[0]
            case c_ast.Constant(type="char"):
                return character(node.value)
            case c_ast.ID():
                symbol = self.lookup(node.name)
                return symbol.value if symbol is not None and symbol.kind == "constant" else None
            case c_ast.Cast():
                return self.constant(node.expr)
            case c_ast.UnaryOp(op="-" | "+" | "~"):
                value = self.constant(node.expr)
                if value is None:
                    return None
                return {"-": -value, "+": value, "~": ~value}[node.op]
            case c_ast.BinaryOp():
                left, right = self.constant(node.left), self.constant(node.right)
                if left is None or right is None:
                    return None
                return fold(node.op, left, right)
        return None


def fold(op: str, a: int, b: int) -> int | None:
    """C's integer arithmetic on constants; None for what is undefined or not arithmetic."""
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "/" | "%" if b != 0:
            quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
            return quotient if op == "/" else a - b * quotient
        case "<<" if 0 <= b < 64:
            return a << b
        case ">>" if 0 <= b < 64:
            return a >> b
        case "&":
            return a & b
        case "|":
            return a | b
        case "^":
            return a ^ b
    return None


def _scalar(dtype: str) -> ScalarType:
    return ScalarType(dtype, _SPELLINGS[dtype])


def _walk(node: c_ast.Node) -> Iterator[c_ast.Node]:
    yield node
    for _, child in node.children():
        yield from _walk(child)


walk = _walk


# -- literals --------------------------------------------------------------------------------


def integer_literal(text: str) -> tuple[int, str]:
    """Value and dtype: the first of C's candidate types that holds the value."""
    digits = text.rstrip("uUlL")
    suffix = text[len(digits) :].lower()
    if digits.lower().startswith(("0x", "0b")):
        value, decimal = int(digits, 0), False
    elif digits.startswith("0") and digits != "0":
        value, decimal = int(digits, 8), False
    else:
        value, decimal = int(digits), True
    unsigned, long = "u" in suffix, "l" in suffix
    candidates = ["int32", "uint32", "int64", "uint64"]
    if unsigned:
        candidates = ["uint32", "uint64"]
    elif decimal:
        candidates = ["int32", "int64"]
    if long:
        candidates = [c for c in candidates if c.endswith("64")]
    for dtype in candidates:
        if value <= largest(dtype):
            return value, dtype
    return value, "uint64"


def largest(dtype: str) -> int:
    bits = NUMBER_OF_BITS[dtype]
    if dtype == "bool":
        return 1
    return (1 << bits) - 1 if dtype.startswith("u") else (1 << (bits - 1)) - 1


def smallest(dtype: str) -> int:
    return 0 if dtype.startswith("u") or dtype == "bool" else -largest(dtype) - 1


_ESCAPES = {"n": 10, "t": 9, "r": 13, "0": 0, "a": 7, "b": 8, "f": 12, "v": 11}


def character(text: str) -> int | None:
    """The value of a plain character constant."""
    body = text.strip("LuU")[1:-1]
    if len(body) == 1:
        return ord(body)
    if len(body) == 2 and body[0] == "\\":
        return _ESCAPES.get(body[1], ord(body[1]))
    return None


# -- conversions -----------------------------------------------------------------------------


def is_integer(dtype: str) -> bool:
    return dtype not in FLOATS


def cast(value: Value, dtype: str) -> Value:
    """Convert explicitly; constants are converted here and now."""
    if value.dtype == dtype:
        return value
    if isinstance(value, Number):
        if dtype == "bool":
            return Number("bool", bool(value.value))
        if dtype == "float64" or (dtype == "float32" and isinstance(value.value, int)):
            if abs(value.value) <= 1 << 24:
                return Number(dtype, float(value.value))
        elif (
            is_integer(dtype)
            and isinstance(value.value, int)
            and smallest(dtype) <= value.value <= largest(dtype)
        ):
            return Number(dtype, int(value.value))
    if dtype == "bool":
        return truth(value)
    return Operation(dtype, "cast", (value,))


def truth(value: Value) -> Value:
    """``value != 0``."""
    if value.dtype == "bool":
        return value
    zero = Number(value.dtype, 0 if is_integer(value.dtype) else 0.0)
    return Operation("bool", "ne", (value, zero))


def promoted(dtype: str) -> str:
    return dtype if dtype in CONVERSION_RANK else "int32"


def promote(value: Value) -> Value:
    return cast(value, promoted(value.dtype))


def common(a: str, b: str) -> str:
    """The usual arithmetic conversions."""
    ranks = (CONVERSION_RANK.index(promoted(a)), CONVERSION_RANK.index(promoted(b)))
    return CONVERSION_RANK[max(ranks)]


def location(node: c_ast.Node) -> Location:
    coord = node.coord
    return Location(coord.file, coord.line) if coord is not None else Location()


def refuse(node: c_ast.Node, construct: str, why: str) -> UnsupportedError:
    return UnsupportedError(location(node), construct, why)
