"""Whether a variable that a region changes may be read after it.

One walk over what may run after the region: the rest of its block, of the blocks around it, and
the bodies of the loops around it once more. Where jumps make that order uncertain the answer is
yes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pycparser import c_ast

from perfkit.frontends.c_regions import Found
from perfkit.frontends.c_types import Symbol, walk

Effect = Literal["read", "killed", "none"]
_LOOPS = (c_ast.For, c_ast.While, c_ast.DoWhile)


def live_after(found: Found, symbol: Symbol) -> bool:
    """Whether the value that ``symbol`` has at the end of the region may be read."""
    name = symbol.name
    if symbol.storage in ("global", "static") or _address_taken(found.function, name):
        return True
    jumps = [n for n in walk(found.function.body) if isinstance(n, c_ast.Goto | c_ast.Label)]
    if jumps:
        inside = {id(n) for root in found.nodes for n in walk(root)}
        return any(
            isinstance(n, c_ast.ID) and n.name == name and id(n) not in inside
            for n in walk(found.function.body)
        )
    # A break may skip an assignment that would end the old value's life.
    skips = found.in_loop and any(
        isinstance(n, c_ast.Break | c_ast.Continue | c_ast.Switch)
        for n in walk(found.function.body)
    )
    pieces: list[c_ast.Node] = list(found.after)
    for around in found.around:
        match around.node:
            case c_ast.For():
                pieces += [n for n in (around.node.next, around.node.cond) if n is not None]
                pieces.append(_Maybe(around.node.stmt))
            case c_ast.While() | c_ast.DoWhile():
                pieces += [around.node.cond, _Maybe(around.node.stmt)]
        pieces += around.after
    return _sequence(pieces, name, skips) == "read"


def overwritten(found: Found, name: str) -> bool:
    """Whether the region assigns the variable, in every run, before it reads it."""
    return _sequence(found.nodes, name) == "killed"


class _Maybe(c_ast.Node):
    """A body that may not run at all."""

    def __init__(self, body: c_ast.Node) -> None:
        self.body = body
        self.coord = body.coord


def _sequence(nodes: Iterable[c_ast.Node | None], name: str, skips: bool = False) -> Effect:
    for node in nodes:
        if node is None:
            continue
        if isinstance(node, c_ast.Decl) and node.name == name:
            if _sequence([node.init], name) == "read":
                return "read"
            return "none"  # from here on the name means another variable
        effect = _effect(node, name)
        if effect == "read" or (effect == "killed" and not skips):
            return effect
    return "none"


def _effect(node: c_ast.Node, name: str) -> Effect:
    match node:
        case c_ast.ID():
            return "read" if node.name == name else "none"
        case _Maybe():
            return "read" if _effect(node.body, name) == "read" else "none"
        case c_ast.Assignment(op="=", lvalue=c_ast.ID()) if node.lvalue.name == name:
            return "read" if _effect(node.rvalue, name) == "read" else "killed"
        case c_ast.Compound():
            return _sequence(node.block_items or (), name)
        case c_ast.If() | c_ast.TernaryOp():
            first = _effect(node.cond, name)
            if first != "none":
                return first
            branches = [
                "none" if b is None else _effect(b, name) for b in (node.iftrue, node.iffalse)
            ]
            if "read" in branches:
                return "read"
            return "killed" if branches == ["killed", "killed"] else "none"
        case c_ast.BinaryOp(op="&&" | "||"):
            first = _effect(node.left, name)
            if first != "none":
                return first
            return "read" if _effect(node.right, name) == "read" else "none"
        case c_ast.For():
            first = _sequence([node.init], name)
            declared = node.init.decls if isinstance(node.init, c_ast.DeclList) else ()
            if any(d.name == name for d in declared):
                return "none" if first != "read" else first
            if first == "none" and node.cond is not None:
                first = _effect(node.cond, name)
            if first != "none":
                return first
            rest = (node.stmt, node.next)
            return "read" if any(r and _effect(r, name) == "read" for r in rest) else "none"
        case c_ast.While():
            first = _effect(node.cond, name)
            if first != "none":
                return first
            return "read" if _effect(node.stmt, name) == "read" else "none"
        case c_ast.Switch():
            parts = (node.cond, node.stmt)
            return "read" if any(_effect(p, name) == "read" for p in parts) else "none"
        case c_ast.Return():
            if node.expr is not None and _effect(node.expr, name) == "read":
                return "read"
            return "killed"
        case c_ast.UnaryOp(op="sizeof"):
            return "none"
    return _sequence((child for _, child in node.children()), name)


def _address_taken(function: c_ast.FuncDef, name: str) -> bool:
    return any(
        isinstance(n, c_ast.UnaryOp)
        and n.op == "&"
        and isinstance(n.expr, c_ast.ID)
        and n.expr.name == name
        for n in walk(function.body)
    )


def mentioned_outside(found: Found, name: str) -> bool:
    """Whether the function mentions the name anywhere outside the region."""
    inside = {id(n) for root in found.nodes for n in walk(root)}
    return any(
        isinstance(n, c_ast.ID) and n.name == name and id(n) not in inside
        for n in walk(found.function)
    )
