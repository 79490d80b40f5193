"""C text of affine and value expressions, scalar and SIMD."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from perfkit.codegen.mathematics import definitions
from perfkit.codegen.nodes import Bound, Instance, Lanes, Register
from perfkit.codegen.promote import Place
from perfkit.errors import InternalError
from perfkit.ir.affine import Affine, Constraint, Piece
from perfkit.ir.expr import (
    ITEMSIZE,
    Access,
    AffineValue,
    Binary,
    Call,
    Cast,
    Compare,
    Const,
    Expr,
    Load,
    Scalar,
    Select,
    Unary,
)

C_TYPES = {
    "float64": "double", "float32": "float", "int8": "int8_t", "int16": "int16_t",
    "int32": "int32_t", "int64": "int64_t", "uint8": "uint8_t", "uint16": "uint16_t",
    "uint32": "uint32_t", "uint64": "uint64_t", "bool": "_Bool",
}  # fmt: skip
_SHORT = {"float64": "f64", "float32": "f32"}
_BINARY = {
    "mul": ("*", 10), "div": ("/", 10), "tdiv": ("/", 10), "tmod": ("%", 10), "add": ("+", 9),
    "sub": ("-", 9), "shl": ("<<", 8), "shr": (">>", 8), "and": ("&", 5), "xor": ("^", 4),
    "or": ("|", 3), "land": ("&&", 2), "lor": ("||", 1),
}  # fmt: skip
_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_UNARY = {"neg": "-", "not": "!", "invert": "~"}
# What glibc's libmvec has for float and double.
_VECTOR_MATH = frozenset(
    {"exp", "exp2", "log", "log2", "log10", "log1p", "expm1", "sin", "cos", "tan", "asin", "acos"}
    | {"atan", "sinh", "cosh", "tanh", "erf", "cbrt", "pow", "atan2", "hypot"}
)
_SUBINT = ("int8", "int16", "uint8", "uint16")
_PRIMARY, _PREFIX, _TERNARY = 20, 12, 0


def vector_type(dtype: str, lanes: int) -> str:
    return f"{_SHORT[dtype]}x{lanes}"


@dataclass
class Helpers:
    """Small functions and types that the text used, so that only those are defined.

    ``vector_math``: functions such as exp may be replaced by the C library's vector forms, which
    are less exact (4 units in the last place).
    """

    used: dict[str, str] = field(default_factory=dict)
    vector_math: bool = False

    def need(self, name: str, text: str) -> str:
        self.used[name] = text
        return name

    def vector(self, dtype: str, lanes: int) -> str:
        name, c = vector_type(dtype, lanes), C_TYPES[dtype]
        size = ITEMSIZE[dtype]
        return self.need(
            name,
            f"typedef {c} {name} __attribute__((vector_size({size * lanes})));\n"
            f"typedef {c} {name}_u __attribute__((vector_size({size * lanes}), aligned({size})));",
        )

    def unaligned(self, dtype: str, lanes: int) -> str:
        """The vector type for memory that is aligned to its elements only.

        Vectors are read and written through pointers to it, never passed to functions: without
        the instruction set in the compiler's flags, that would be an ABI that gcc warns about.
        """
        return f"{self.vector(dtype, lanes)}_u"

    def prefetch(self) -> str:
        """Asks for memory that will be written, at even distances; it need not exist."""
        return self.need(
            "perfkit_ahead",
            "static inline void perfkit_ahead(const void *first, const void *second, int n, int "
            "stop)\n{\n  const uintptr_t apart = (uintptr_t)second - (uintptr_t)first;\n"
            "  for (; n < stop; ++n)\n    __builtin_prefetch((const void *)((uintptr_t)first + "
            "(uintptr_t)n * apart), 1);\n}",
        )

    def floor_divide(self) -> str:
        return self.need(
            "floor_div",
            "static inline int64_t floor_div(int64_t a, int64_t b) "
            "{ return a / b - (a % b != 0 && (a < 0) != (b < 0)); }",
        )

    def extreme(self, kind: str, dtype: str) -> str:
        c, name = C_TYPES[dtype], f"{kind}_{dtype}"
        sign = "<" if kind == "min" else ">"
        return self.need(
            name, f"static inline {c} {name}({c} a, {c} b) {{ return a {sign} b ? a : b; }}"
        )

    def vector_extreme(self, kind: str, dtype: str, lanes: int) -> str:
        vector = self.vector(dtype, lanes)
        mask = f"i{8 * ITEMSIZE[dtype]}x{lanes}"
        self.need(
            mask,
            f"typedef int{8 * ITEMSIZE[dtype]}_t {mask} "
            f"__attribute__((vector_size({ITEMSIZE[dtype] * lanes})));",
        )
        sign = "<" if kind == "min" else ">"
        name = f"{kind}_{vector}"
        return self.need(
            name,
            f"#define {name}(a, b) __extension__({{ const {vector} a_ = (a), b_ = (b); "
            f"const {mask} m_ = a_ {sign} b_; "
            f"({vector})((m_ & ({mask})a_) | (~m_ & ({mask})b_)); }})",
        )

    def mathematics(self, function: str, dtype: str, count: int) -> str:
        """The name of a form of a function that vectorises: ours, or glibc's of libmvec."""
        own = definitions(function, dtype)
        if own is not None:
            for text in own:
                self.need(text, text)
            return f"perfkit_{function}f"
        name, c = function + ("f" if dtype == "float32" else ""), C_TYPES[dtype]
        arguments = ", ".join([c] * count)
        self.need(
            f"libmvec {name}",
            "#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) "
            "&& defined(__GLIBC_PREREQ)\n#if __GLIBC_PREREQ(2, 35)\n"
            "#pragma omp declare simd notinbranch\n"
            f"extern {c} {name}({arguments}) __attribute__((const));\n#endif\n#endif",
        )
        return name

    def floor_mod(self, dtype: str) -> str:
        c = C_TYPES[dtype]
        if dtype in _SHORT:
            suffix = "f" if dtype == "float32" else ""
            return self.need(
                f"mod_{dtype}",
                f"static inline {c} mod_{dtype}({c} a, {c} b) {{ {c} r = fmod{suffix}(a, b); "
                f"return r != 0 && (r < 0) != (b < 0) ? r + b : r; }}",
            )
        return self.need(
            f"mod_{dtype}",
            f"static inline {c} mod_{dtype}({c} a, {c} b) {{ {c} r = ({c})(a % b); "
            f"return r != 0 && (r < 0) != (b < 0) ? ({c})(r + b) : r; }}",
        )

    def floor_quotient(self, dtype: str) -> str:
        c = C_TYPES[dtype]
        if dtype in _SHORT:
            suffix = "f" if dtype == "float32" else ""
            return self.need(
                f"quotient_{dtype}",
                f"static inline {c} quotient_{dtype}({c} a, {c} b) "
                f"{{ return floor{suffix}(a / b); }}",
            )
        return self.need(
            f"quotient_{dtype}",
            f"static inline {c} quotient_{dtype}({c} a, {c} b) "
            f"{{ return ({c})(a / b - (a % b != 0 && (a < 0) != (b < 0))); }}",
        )


class Writer:
    """Writes expressions. ``names`` maps IR names to C expressions (``s`` -> ``(*s)``)."""

    def __init__(self, helpers: Helpers, names: Mapping[str, str], dtypes: Mapping[str, str]):
        self.helpers = helpers
        self.names = names
        self.dtypes = dtypes

    # -- affine ----------------------------------------------------------------------------------

    def name(self, name: str) -> str:
        """The C expression for a name of the SCoP."""
        return self.names.get(name, name)

    def affine(self, a: Affine, tight: bool = False) -> str:
        """``tight`` parenthesises a sum, for use as an operand."""
        parts: list[str] = []
        items = [(self.name(n), c) for n, c in a.terms]
        for div, c in a.divs:
            floor = self.helpers.floor_divide()
            items.append((f"{floor}({self.affine(div.inner)}, {div.divisor})", c))
        items.sort(key=lambda p: p[1] < 0)
        for text, c in items:
            body = text if abs(c) == 1 else f"{abs(c)} * {text}"
            if not parts:
                parts.append(f"-{body}" if c < 0 else body)
            else:
                parts.append(f"{'-' if c < 0 else '+'} {body}")
        if a.const or not parts:
            if parts:
                parts.append(f"{'-' if a.const < 0 else '+'} {abs(a.const)}")
            else:
                parts.append(str(a.const))
        text = " ".join(parts)
        return f"({text})" if tight and len(parts) > 1 else text

    def bound(self, bound: Bound) -> str:
        if isinstance(bound, Affine):
            return self.affine(bound)
        name = self.helpers.extreme(bound.kind, "int64")
        text = self.bound(bound.args[-1])
        for arg in reversed(bound.args[:-1]):
            text = f"{name}({self.bound(arg)}, {text})"
        return text

    def condition(self, pieces: tuple[Piece, ...]) -> str:
        if not pieces:
            return "0"
        texts = [" && ".join(self.constraint(c) for c in p) or "1" for p in pieces]
        if len(texts) == 1:
            return texts[0]
        return " || ".join(f"({t})" if "&&" in t else t for t in texts)

    def constraint(self, c: Constraint) -> str:
        positive = Affine.build(
            {n: k for n, k in c.expr.terms if k > 0}, max(c.expr.const, 0),
            {d: k for d, k in c.expr.divs if k > 0},
        )  # fmt: skip
        negative = positive - c.expr
        sign = "==" if c.kind == "eq" else ">="
        return f"{self.affine(positive)} {sign} {self.affine(negative)}"

    # -- values ----------------------------------------------------------------------------------

    def element(self, access: Access) -> str:
        base = self.name(access.array)
        return base + "".join(f"[{self.affine(i)}]" for i in access.indices)

    def value(self, expr: Expr, instance: Instance, load: Callable[[Access, str], str]) -> str:
        """``load`` gives the text of an access of the statement."""
        return self._value(expr, instance, load)[0]

    def _value(
        self, expr: Expr, instance: Instance, load: Callable[[Access, str], str]
    ) -> tuple[str, int]:
        """The text and its precedence."""

        def at(e: Expr, level: int) -> str:
            text, own = self._value(e, instance, load)
            return text if own >= level else f"({text})"

        match expr:
            case Const():
                return constant(expr.value, expr.dtype)
            case Scalar():
                return self.name(expr.name), _PRIMARY
            case AffineValue():
                text = self.affine(instance.resolve(expr.affine))
                return f"({C_TYPES[expr.dtype]})({text})", _PREFIX
            case Load():
                return load(expr.access, expr.dtype), _PRIMARY
            case Unary():
                return f"{_UNARY[expr.op]}{at(expr.arg, _PREFIX + 1)}", _PREFIX
            case Cast():
                return f"({C_TYPES[expr.dtype]}){at(expr.arg, _PREFIX)}", _PREFIX
            case Compare():
                return f"{at(expr.left, 8)} {_COMPARE[expr.op]} {at(expr.right, 8)}", 6
            case Select():
                test, yes, no = at(expr.condition, 1), at(expr.if_true, 1), at(expr.if_false, 1)
                return f"{test} ? {yes} : {no}", _TERNARY
            case Call():
                args = ", ".join(at(a, _TERNARY) for a in expr.args)
                return f"{self.function(expr)}({args})", _PRIMARY
            case Binary():
                return self._binary(expr, at, instance.lanes)
        raise InternalError(f"no C text for {type(expr).__name__}")

    def _binary(
        self, expr: Binary, at: Callable[[Expr, int], str], lanes: Lanes | None
    ) -> tuple[str, int]:
        left, right, op = expr.left, expr.right, expr.op
        if lanes is not None and op in ("min", "max"):
            # An operand that is no vector becomes one; x - 0 is x, signs and NaN included.
            name = self.helpers.vector_extreme(op, expr.dtype, lanes.count)
            zero = f"({self.helpers.vector(expr.dtype, lanes.count)}){{0}}"
            sides = [f"{at(e, 9)} - {zero}" for e in (left, right)]
            # A macro takes the commas of an initializer for its own.
            sides = [f"({side})" if ", " in side else side for side in sides]
            return f"{name}({', '.join(sides)})", _PRIMARY
        named = {
            "min": lambda: self.helpers.extreme("min", expr.dtype),
            "max": lambda: self.helpers.extreme("max", expr.dtype),
            "mod": lambda: self.helpers.floor_mod(expr.dtype),
            "floordiv": lambda: self.helpers.floor_quotient(expr.dtype),
        }
        if op in named:
            return f"{named[op]()}({at(left, 0)}, {at(right, 0)})", _PRIMARY
        sign, level = _BINARY[op]
        if op in ("and", "or", "xor", "land", "lor", "shl", "shr"):
            # gcc and clang warn about mixing these with others unparenthesised.
            text = f"{at(left, _PREFIX)} {sign} {at(right, _PREFIX)}"
        else:
            text = f"{at(left, level)} {sign} {at(right, level + 1)}"
        if expr.dtype in _SUBINT:
            return f"({C_TYPES[expr.dtype]})({text})", _PREFIX
        return text, level

    def function(self, call: Call) -> str:
        name = call.function
        if name == "abs" and call.dtype not in _SHORT:
            c = C_TYPES[call.dtype]
            return self.helpers.need(
                f"abs_{call.dtype}",
                f"static inline {c} abs_{call.dtype}({c} a) {{ return a < 0 ? ({c})-a : a; }}",
            )
        if name == "abs":
            name = "fabs"
        if self.helpers.vector_math and name in _VECTOR_MATH:
            return self.helpers.mathematics(name, call.dtype, len(call.args))
        return name + ("f" if call.dtype == "float32" else "")


def constant(value: int | float | bool, dtype: str) -> tuple[str, int]:
    if dtype == "bool":
        return ("1" if value else "0"), _PRIMARY
    if dtype in _SHORT:
        suffix = "f" if dtype == "float32" else ""
        number = float(value)
        if number != number:
            return "NAN", _PRIMARY
        if number in (float("inf"), float("-inf")):
            return ("INFINITY" if number > 0 else "-INFINITY"), _PREFIX
        text = repr(number)
        if not any(c in text for c in ".e"):
            text += ".0"
        return text + suffix, (_PREFIX if number < 0 or text[0] == "-" else _PRIMARY)
    number_int = int(value)
    if dtype == "int64":
        if number_int == -(2**63):
            return "INT64_MIN", _PRIMARY
        text = str(number_int) if -(2**31) < number_int < 2**31 else f"INT64_C({number_int})"
    elif dtype == "uint64":
        text = f"UINT64_C({number_int})"
    elif dtype == "uint32":
        text = f"{number_int}u"
    elif dtype == "int32" and number_int == -(2**31):
        return "INT32_MIN", _PRIMARY
    else:
        text = str(number_int)
    if dtype == "int64":
        return f"(int64_t){text}", _PREFIX
    return text, (_PREFIX if number_int < 0 else _PRIMARY)


@dataclass(frozen=True, slots=True)
class Registers:
    """The registers in scope, by the place they stand for."""

    table: Mapping[Place, Register]

    def find(self, place: Place) -> Register | None:
        """The register of a place; a shared partial result serves every part."""
        return self.table.get(place) or self.table.get(Place(place.access, place.lanes))

    def extended(self, registers: tuple[Register, ...]) -> Registers:
        table = dict(self.table)
        for r in registers:
            lanes: Lanes | None = None if r.part is not None else r.lanes
            table[Place(r.access, lanes, r.part)] = r
        return Registers(table)
