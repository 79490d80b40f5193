"""Triton text of expressions: index arithmetic, conditions, values.

Types are those of the IR: every conversion is written out, floating-point division and square roots
are the IEEE ones, and constants without a tensor beside them carry their type.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping

from perfkit.codegen.nodes import Bound
from perfkit.errors import InternalError
from perfkit.ir import expr as ir
from perfkit.ir.affine import Affine, Constraint, Piece

HELPERS = '''\
@triton.jit
def floor_div(a, d: tl.constexpr):
    """The quotient rounded down, for d > 0 (Triton's ``//`` rounds towards zero)."""
    q = a // d
    return tl.where(a < q * d, q - 1, q)
'''

_RESERVED = frozenset(
    [*keyword.kwlist, *keyword.softkwlist, "tl", "triton", "torch", "libdevice", "floor_div",
     "range", "max", "min", "program", "INDEX"]
)  # fmt: skip

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^", "shl": "<<",
    "shr": ">>", "land": "&", "lor": "|", "tdiv": "//", "tmod": "%",
}  # fmt: skip
_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_TL_CALLS = {
    "exp": "tl.exp", "exp2": "tl.exp2", "log": "tl.log", "log2": "tl.log2", "sin": "tl.sin",
    "cos": "tl.cos", "erf": "tl.erf", "floor": "tl.floor", "ceil": "tl.ceil", "fabs": "tl.abs",
    "abs": "tl.abs", "fma": "tl.fma",
}  # fmt: skip


def type_of(dtype: str) -> str:
    return "tl.int1" if dtype == "bool" else f"tl.{dtype}"


def safe(name: str) -> str:
    """A name as the generated module uses it."""
    return f"{name}_" if name in _RESERVED or name.startswith("__") else name


# -- integers --------------------------------------------------------------------------------

Spell = Callable[[str], str]
"""How a variable is written in the present context."""


def affine(a: Affine, spell: Spell = safe, host: bool = False) -> str:
    """Index arithmetic; on the host ``//`` already rounds down."""
    parts: list[tuple[bool, str]] = []
    for name, c in a.terms:
        parts.append((c < 0, _times(abs(c), spell(name))))
    for div, c in a.divs:
        inner = affine(div.inner, spell, host)
        text = f"({inner}) // {div.divisor}" if host else f"floor_div({inner}, {div.divisor})"
        parts.append((c < 0, _times(abs(c), f"({text})" if host else text)))
    if a.const or not parts:
        parts.append((a.const < 0, str(abs(a.const))))
    parts.sort(key=lambda part: part[0])
    text = ("-" if parts[0][0] else "") + parts[0][1]
    return text + "".join(f" {'-' if minus else '+'} {part}" for minus, part in parts[1:])


def _times(c: int, text: str) -> str:
    return text if c == 1 else f"{c} * {text}"


def wrapped(text: str) -> str:
    """In parentheses unless it is one name, number or call."""
    outside = re.sub(r"\[[^\]]*\]", "", text)
    return f"({text})" if " " in outside or text.startswith("-") else text


def bound(b: Bound, spell: Spell = safe, host: bool = False) -> str:
    if isinstance(b, Affine):
        return affine(b, spell, host)
    args = [bound(x, spell, host) for x in b.args]
    if host:
        return f"{b.kind}({', '.join(args)})"
    result = args[0]
    for other in args[1:]:
        result = f"tl.{b.kind}imum({result}, {other})"
    return result


def constraint(c: Constraint, spell: Spell, lane: str = "") -> str:
    """``i < n - 1`` rather than ``n - i - 2 >= 0``; spread along ``lane`` where one is given."""
    left = Affine.build(
        {n: k for n, k in c.expr.terms if k > 0}, 0, {d: k for d, k in c.expr.divs if k > 0}
    )
    right = left - c.expr  # left >= right
    if c.kind == "eq":
        small, sign, large = left, "==", right
    elif left == Affine():
        small, sign, large = right, "<=", left
    elif not (right.terms or right.divs):
        small, sign, large = left, ">=", right
    elif right.const == 1:
        small, sign, large = right - 1, "<", left
    else:
        common = max(0, right.const)
        small, sign, large = right - common, "<=", left - common
    spread = f" + 0 * {spell(lane)}" if lane else ""
    return f"({affine(small, spell)}{spread} {sign} {affine(large, spell)})"


def condition(pieces: tuple[Piece, ...], spell: Spell, lane: str = "") -> str:
    """A union of conjunctions; "" when it always holds.

    With ``lane``, it is a tensor condition: a comparison of scalars is spread along that lane.
    (Triton's interpreter mistakes a scalar condition beside a tensor's for integers.)
    """
    if any(not piece for piece in pieces):
        return ""
    if not pieces:
        return "False"

    def one(c: Constraint) -> str:
        return constraint(c, spell, "" if lane in c.expr.names() else lane)

    texts = [" & ".join(map(one, piece)) for piece in pieces]
    if len(texts) == 1:
        return texts[0]
    return " | ".join(f"({t})" for t in texts)


# -- values ----------------------------------------------------------------------------------


class Values:
    """Writes value expressions; ``loads`` has the text of every access."""

    def __init__(self, loads: Mapping[ir.Access, str], spell: Spell) -> None:
        self.loads = loads
        self.spell = spell

    def text(self, e: ir.Expr) -> str:
        match e:
            case ir.Const():
                return typed_constant(e)
            case ir.AffineValue(dtype=dtype, affine=value):
                return f"tl.cast({affine(value, self.spell)}, {type_of(dtype)})"
            case ir.Scalar(name=name):
                return safe(name)
            case ir.Load(access=access):
                return self.loads[access]
            case ir.Cast(dtype="bool", arg=arg):
                return f"({self.text(arg)} != 0)"
            case ir.Cast(dtype=dtype, arg=arg):
                return f"tl.cast({self.text(arg)}, {type_of(dtype)})"
            case ir.Unary(op="neg", arg=arg):
                return f"(-{self.text(arg)})"
            case ir.Unary(op="not", arg=arg):
                return f"({self.text(arg)} == 0)"
            case ir.Unary(arg=arg):
                return f"(~{self.text(arg)})"
            case ir.Compare(op=op, left=left, right=right):
                a, b = self._pair(left, right)
                return f"({a} {_COMPARE[op]} {b})"
            case ir.Select(condition=c, if_true=a, if_false=b):
                return f"tl.where({self.text(c)}, {self.text(a)}, {self.text(b)})"
            case ir.Binary():
                return self._binary(e)
            case ir.Call():
                return self._call(e)
        raise InternalError(f"no Triton form of {e}")

    def _pair(self, left: ir.Expr, right: ir.Expr) -> tuple[str, str]:
        """Two operands; a constant takes its type from the other one."""
        both = isinstance(left, ir.Const) and isinstance(right, ir.Const)
        a, b = (
            _plain(x) if isinstance(x, ir.Const) and not both else self.text(x)
            for x in (left, right)
        )
        return a, b

    def _binary(self, e: ir.Binary) -> str:
        if e.op in ("min", "max"):
            a, b = self.text(e.left), self.text(e.right)
            return f"tl.where({a} {'<' if e.op == 'min' else '>'} {b}, {a}, {b})"
        a, b = self._pair(e.left, e.right)
        if e.op == "div":
            if e.dtype == "float32":
                return f"tl.div_rn({self.text(e.left)}, {self.text(e.right)})"
            return f"({a} / {b})"
        if e.op in ("floordiv", "mod"):
            return self._flooring(e)
        return f"({a} {_INFIX[e.op]} {b})"

    def _flooring(self, e: ir.Binary) -> str:
        a, b = self.text(e.left), self.text(e.right)
        if e.dtype in ir.FLOATS:
            quotient = f"tl.floor({a} / {b})"
            return quotient if e.op == "floordiv" else f"({a} - {quotient} * {b})"
        wrong = f"((({a} % {b}) != 0) & ((({a} % {b}) < 0) != ({b} < 0)))"
        if e.op == "floordiv":
            return f"tl.where({wrong}, {a} // {b} - 1, {a} // {b})"
        return f"tl.where({wrong}, {a} % {b} + {b}, {a} % {b})"

    def _call(self, e: ir.Call) -> str:
        args = [self.text(a) for a in e.args]
        if e.function == "sqrt":
            return f"tl.sqrt_rn({args[0]})" if e.dtype == "float32" else f"tl.sqrt({args[0]})"
        name = _TL_CALLS.get(e.function, f"libdevice.{e.function}")
        return f"{name}({', '.join(args)})"


def _plain(e: ir.Const) -> str:
    if e.dtype == "bool":
        return str(bool(e.value))
    if e.dtype in ir.FLOATS:
        number = float(e.value)
        if number != number or number in (float("inf"), float("-inf")):
            return f'float("{number}")'
        return repr(number) if number >= 0 else f"({number!r})"
    return str(int(e.value)) if e.value >= 0 else f"({int(e.value)})"


def typed_constant(e: ir.Const) -> str:
    return f"tl.full((), {_plain(e)}, {type_of(e.dtype)})"


__all__ = [
    "HELPERS", "Spell", "Values", "affine", "bound", "condition", "safe", "type_of",
    "typed_constant", "wrapped",
]  # fmt: skip
