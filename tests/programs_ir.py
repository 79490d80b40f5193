"""SCoPs written by hand, without a frontend: a line-based text form and some classic programs.

::

    params n
    context n >= 1
    array A[n, n] float64
    array t float64 local
    S0[i, j]: 0 <= i < n and 0 <= j <= i: A[i, j] = A[i, j] + 1.0
    tree
    for i(S0: i)
      for j(S0: j)
        S0

``local`` and ``dead`` (not live out) may follow an array's dtype. Values are Python expressions of
array elements, scalar variables, numbers, calls of ``min``, ``max``, ``sqrt``..., and
``val(i + 1)`` for an iterator's value.
"""

from __future__ import annotations

import ast
import re

from perfkit.ir.affine import Affine, Constraint, Domain
from perfkit.ir.expr import (
    FLOATS,
    Access,
    AffineValue,
    Binary,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Scalar,
    Unary,
)
from perfkit.ir.scop import Array, ScalarArgument, Scop, Statement
from perfkit.ir.tree import parse, parse_affine

_BINARY = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.BitAnd: "and",
    ast.BitOr: "or", ast.BitXor: "xor",
}  # fmt: skip


def constraints(text: str) -> tuple[tuple[Constraint, ...], ...]:
    """``0 <= i < n and i % 2 = 0 or ...`` as pieces."""
    if text.strip() in ("", "true"):
        return ((),)
    return tuple(
        tuple(c for chain in piece.split(" and ") for c in _chain(chain))
        for piece in text.split(" or ")
    )


def _term(text: str) -> Affine:
    modulo = re.fullmatch(r"\s*\(?(.*?)\)?\s*%\s*(\d+)\s*", text)
    if modulo:
        return parse_affine(modulo[1]).mod(int(modulo[2]))
    return parse_affine(text)


def _chain(text: str) -> list[Constraint]:
    parts = re.split(r"(<=|>=|<|>|=)", text)
    result = []
    for k in range(0, len(parts) - 2, 2):
        left, op, right = _term(parts[k]), parts[k + 1], _term(parts[k + 2])
        if op == "=":
            result.append(Constraint(left - right, "eq"))
        elif op in ("<=", "<"):
            result.append(Constraint(right - left - (op == "<")))
        else:
            result.append(Constraint(left - right - (op == ">")))
    return result


class _Values:
    """Translates a Python expression tree into typed value expressions."""

    def __init__(self, arrays: dict[str, Array], scalars: dict[str, str], dtype: str) -> None:
        self.arrays, self.scalars, self.dtype = arrays, scalars, dtype

    def access(self, node: ast.expr) -> Access:
        if isinstance(node, ast.Name):
            return Access(node.id)
        assert isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name)
        index = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return Access(node.value.id, tuple(_affine(i) for i in index))

    def expr(self, node: ast.expr) -> Expr:
        match node:
            case ast.Constant(value=value):
                number = float(value) if self.dtype in FLOATS else int(value)
                return Const(self.dtype, number)
            case ast.Name(id=name) if name in self.scalars:
                return self.cast(Scalar(self.scalars[name], name))
            case ast.Name() | ast.Subscript():
                access = self.access(node)
                return self.cast(Load(self.arrays[access.array].dtype, access))
            case ast.BinOp(left=left, op=op, right=right):
                return Binary(self.dtype, _BINARY[type(op)], self.expr(left), self.expr(right))
            case ast.UnaryOp(op=ast.USub(), operand=arg):
                return Unary(self.dtype, "neg", self.expr(arg))
            case ast.Call(func=ast.Name(id=name), args=args):
                if name == "val":
                    return self.cast(AffineValue("int64", _affine(args[0])))
                values = tuple(self.expr(a) for a in args)
                if name in ("min", "max"):
                    return Binary(self.dtype, name, values[0], values[1])
                return Call(self.dtype, name, values)
        raise ValueError(ast.dump(node))

    def cast(self, expr: Expr) -> Expr:
        return expr if expr.dtype == self.dtype else Cast(self.dtype, expr)


def _affine(node: ast.expr) -> Affine:
    match node:
        case ast.BinOp(left=left, op=ast.FloorDiv(), right=ast.Constant(value=d)):
            return _affine(left).floordiv(d)
        case ast.BinOp(left=left, op=ast.Mod(), right=ast.Constant(value=d)):
            return _affine(left).mod(d)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _affine(left) + _affine(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _affine(left) - _affine(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            a, b = _affine(left), _affine(right)
            return b * a.const if a.is_constant else a * b.const
        case ast.UnaryOp(op=ast.USub(), operand=arg):
            return -_affine(arg)
        case ast.Constant(value=value):
            return Affine.constant(value)
        case ast.Name(id=name):
            return Affine.variable(name)
    raise ValueError(ast.dump(node))


def parse_scop(text: str, name: str = "test") -> Scop:
    """Read the text form above."""
    head, _, tree = text.partition("\ntree")
    parameters: tuple[str, ...] = ()
    context: tuple[tuple[Constraint, ...], ...] = ((),)
    arrays: dict[str, Array] = {}
    scalars: dict[str, str] = {}
    statements: list[Statement] = []
    for line in map(str.strip, head.splitlines()):
        word, _, rest = line.partition(" ")
        if not line or line.startswith("#"):
            continue
        if word == "params":
            parameters = tuple(rest.split())
        elif word == "context":
            context = constraints(rest)
        elif word == "scalar":
            scalar, dtype = rest.split()
            scalars[scalar] = dtype
        elif word == "array":
            match = re.fullmatch(r"(\w+)(?:\[(.*)\])?\s+(\w+)((?:\s+\w+)*)", rest)
            assert match, line
            shape = tuple(parse_affine(t) for t in match[2].split(",")) if match[2] else ()
            flags = match[4].split()
            local = "local" in flags
            live_out = not local and "dead" not in flags
            arrays[match[1]] = Array(match[1], match[3], shape, local, live_out)
        else:
            statements.append(_statement(line, arrays, scalars))
    return Scop(
        name,
        parameters,
        Domain((), context),
        tuple(arrays.values()),
        tuple(ScalarArgument(n, d) for n, d in scalars.items()),
        tuple(statements),
        parse(tree),
    )


def _statement(line: str, arrays: dict[str, Array], scalars: dict[str, str]) -> Statement:
    match = re.fullmatch(r"(\w+)\[(.*?)\]\s*:(.*?):(.*?[^<>=!])=(?!=)(.*)", line)
    assert match, line
    iterators = tuple(t.strip() for t in match[2].split(",") if t.strip())
    target = ast.parse(match[4].strip(), mode="eval").body
    values = _Values(arrays, scalars, "float64")
    write = values.access(target)
    values.dtype = arrays[write.array].dtype
    value = values.expr(ast.parse(match[5].strip(), mode="eval").body)
    return Statement(match[1], Domain(iterators, constraints(match[3])), write, value, text=line)


# -- classic programs ------------------------------------------------------------------------

MATMUL = """
params n
context n >= 1
array A[n, n] float64
array B[n, n] float64
array C[n, n] float64
S0[i, j]: 0 <= i < n and 0 <= j < n: C[i, j] = C[i, j] * 0.5
S1[i, j, k]: 0 <= i < n and 0 <= j < n and 0 <= k < n: C[i, j] = C[i, j] + A[i, k] * B[k, j]
tree
for i(S0: i, S1: i) for j(S0: j, S1: j) { S0; for k(S1: k) S1 }
"""

JACOBI_1D = """
params n t
context n >= 1 and t >= 1
array A[n] float64
array B[n] float64
S0[s, i]: 0 <= s < t and 1 <= i < n - 1: B[i] = A[i - 1] + A[i] + A[i + 1]
S1[s, i]: 0 <= s < t and 1 <= i < n - 1: A[i] = B[i - 1] + B[i] + B[i + 1]
tree
for s(S0: s, S1: s) { for i(S0: i) S0; for i_2(S1: i) S1 }
"""

JACOBI_2D = """
params n t
context n >= 1 and t >= 1
array A[n, n] float64
array B[n, n] float64
S0[s, i, j]: 0 <= s < t and 1 <= i < n - 1 and 1 <= j < n - 1: B[i, j] = A[i, j] + A[i, j - 1] + A[i, j + 1] + A[i + 1, j] + A[i - 1, j]
S1[s, i, j]: 0 <= s < t and 1 <= i < n - 1 and 1 <= j < n - 1: A[i, j] = B[i, j] + B[i, j - 1] + B[i, j + 1] + B[i + 1, j] + B[i - 1, j]
tree
for s(S0: s, S1: s) { for i(S0: i) for j(S0: j) S0; for i_2(S1: i) for j_2(S1: j) S1 }
"""  # noqa: E501

SEIDEL = """
params n t
context n >= 1 and t >= 1
array A[n, n] float64
S0[s, i, j]: 0 <= s < t and 1 <= i < n - 1 and 1 <= j < n - 1: A[i, j] = A[i - 1, j] + A[i + 1, j] + A[i, j - 1] + A[i, j + 1] + A[i, j]
tree
for s(S0: s) for i(S0: i) for j(S0: j) S0
"""  # noqa: E501

TRISOLV = """
params n
context n >= 1
array L[n, n] float64
array x[n] float64
array b[n] float64
S0[i]: 0 <= i < n: x[i] = b[i]
S1[i, j]: 0 <= i < n and 0 <= j < i: x[i] = x[i] - L[i, j] * x[j]
S2[i]: 0 <= i < n: x[i] = x[i] / L[i, i]
tree
for i(S0: i, S1: i, S2: i) { S0; for j(S1: j) S1; S2 }
"""

LU = """
params n
context n >= 1
array A[n, n] float64
S0[i, j, k]: 0 <= i < n and 0 <= j < i and 0 <= k < j: A[i, j] = A[i, j] - A[i, k] * A[k, j]
S1[i, j]: 0 <= i < n and 0 <= j < i: A[i, j] = A[i, j] / A[j, j]
S2[i, j, k]: 0 <= i < n and i <= j < n and 0 <= k < i: A[i, j] = A[i, j] - A[i, k] * A[k, j]
tree
for i(S0: i, S1: i, S2: i) { for j(S0: j, S1: j) { for k(S0: k) S0; S1 }; for j_2(S2: j) for k_2(S2: k) S2 }
"""  # noqa: E501

DOT = """
params n
context n >= 1
array a[n] float64
array s float64
array c float64
S0[]: true: s = 0.0
S1[i]: 0 <= i < n: s = s + a[i]
S2[]: true: c = s * 2.0
tree
{ S0; for i(S1: i) S1; S2 }
"""

PRODUCER_CONSUMER = """
params n
context n >= 1
array A[n] float64
array B[n] float64
array C[n] float64
S0[i]: 0 <= i < n: B[i] = A[i] * 2.0
S1[i]: 2 <= i < n - 2: C[i] = B[i - 2] + B[i + 2]
tree
{ for i(S0: i) S0; for i_2(S1: i) S1 }
"""

PROGRAMS = {
    "matmul": MATMUL, "jacobi_1d": JACOBI_1D, "jacobi_2d": JACOBI_2D, "seidel": SEIDEL,
    "trisolv": TRISOLV, "lu": LU, "dot": DOT, "producer_consumer": PRODUCER_CONSUMER,
}  # fmt: skip


def program(name: str) -> Scop:
    """One of :data:`PROGRAMS` by name."""
    return parse_scop(PROGRAMS[name], name)
