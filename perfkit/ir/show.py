"""Readable text of a SCoP.

:func:`text` is canonical: equal SCoPs give equal texts, whatever their source locations, so it
serves as a cache key. :func:`nest` shows a loop tree with the statements' sources for people.
"""

from __future__ import annotations

from perfkit.ir import expr as ir
from perfkit.ir.scop import Scop, Statement
from perfkit.ir.tree import Leaf, Loop, Node, Sequence, show

_SYMBOLS = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^",
    "shl": "<<", "shr": ">>", "land": "&&", "lor": "||", "lt": "<", "le": "<=", "gt": ">",
    "ge": ">=", "eq": "==", "ne": "!=", "neg": "-", "not": "!", "invert": "~",
}  # fmt: skip


def text(scop: Scop) -> str:
    """The canonical text: every field that compares, in order, and nothing else."""
    lines = [f"scop {scop.name}({', '.join(scop.parameters)})", f"where {scop.context}"]
    for array in scop.arrays:
        shape = ", ".join(map(str, array.shape))
        flags = " local" * array.local + " dead" * (not array.local and not array.live_out)
        lines.append(f"array {array.name}: {array.dtype}[{shape}]{flags}")
    lines += [f"scalar {s.name}: {s.dtype}" for s in scop.scalars]
    for s in scop.statements:
        lines.append(f"{s.name}({', '.join(s.iterators)}): {s.write} = {expression(s.value)}")
        lines.append(f"  for {s.domain}")
    lines.append(show(scop.tree))
    return "\n".join(lines) + "\n"


def expression(e: ir.Expr) -> str:
    """An expression with every type that its operands do not determine."""
    match e:
        case ir.Const(dtype=dtype, value=value):
            return f"{dtype}({value!r})"
        case ir.AffineValue(dtype=dtype, affine=affine):
            return f"{dtype}({affine})"
        case ir.Scalar(name=name):
            return name
        case ir.Load(access=access):
            return str(access)
        case ir.Unary(op=op, arg=arg):
            return f"{_SYMBOLS[op]}({expression(arg)})"
        case ir.Binary(op=op, left=left, right=right) | ir.Compare(op=op, left=left, right=right):
            if op in _SYMBOLS:
                return f"({expression(left)} {_SYMBOLS[op]} {expression(right)})"
            return f"{op}({expression(left)}, {expression(right)})"
        case ir.Select(condition=c, if_true=a, if_false=b):
            return f"({expression(c)} ? {expression(a)} : {expression(b)})"
        case ir.Call(dtype=dtype, function=function, args=args):
            return f"{function}.{dtype}({', '.join(map(expression, args))})"
        case ir.Cast(dtype=dtype, arg=arg):
            return f"({dtype}) {expression(arg)}"
    raise TypeError(f"not an expression: {e!r}")


def nest(scop: Scop, tree: Node | None = None) -> str:
    """The loops of a tree, one per line, with marks and the statements' source lines."""
    lines: list[str] = []
    _nest(dict(scop.by_name()), scop.tree if tree is None else tree, 0, lines)
    return "\n".join(lines) + "\n"


def _nest(statements: dict[str, Statement], node: Node, depth: int, lines: list[str]) -> None:
    pad = "  " * depth
    match node:
        case Leaf(statement=name):
            s = statements[name]
            body = s.text.strip() or f"{s.write} = {expression(s.value)}"
            lines.append(f"{pad}{name}: {' '.join(body.split())}")
        case Sequence(children=children):
            for child in children:
                _nest(statements, child, depth, lines)
        case Loop(name=name, schedule=schedule, body=body, marks=marks):
            shared = {str(e) for _, e in schedule}
            over = (
                next(iter(shared))
                if len(shared) == 1
                else ", ".join(f"{s}: {e}" for s, e in schedule)
            )
            head = f"for {name}" if over == name else f"for {name} = {over}"
            lines.append(f"{pad}{head}{''.join(f' {m}' for m in marks)}")
            _nest(statements, body, depth + 1, lines)
