"""The three parts of a ``for`` header."""

from __future__ import annotations

from collections.abc import Iterable

from pycparser import c_ast

from perfkit.frontends.c_types import Scope, walk


def parts_of(node: c_ast.Node | None) -> list[c_ast.Node]:
    """The parts of a header separated by commas."""
    match node:
        case None:
            return []
        case c_ast.DeclList():
            return list(node.decls)
        case c_ast.ExprList():
            return list(node.exprs)
    return [node]


def started(init: c_ast.Node | None) -> set[str]:
    names = set()
    for part in parts_of(init):
        if isinstance(part, c_ast.Decl) and part.name:
            names.add(part.name)
        elif isinstance(part, c_ast.Assignment) and isinstance(part.lvalue, c_ast.ID):
            names.add(part.lvalue.name)
    return names


def is_id(node: c_ast.Node, name: str) -> bool:
    return isinstance(node, c_ast.ID) and node.name == name


def increment(node: c_ast.Node, scope: Scope) -> tuple[str, int] | None:
    """The variable and constant of ``i++``, ``i += c``, ``i = i + c`` and the like."""
    match node:
        case c_ast.UnaryOp(op="p++" | "++" | "p--" | "--", expr=c_ast.ID(name=name)):
            return name, 1 if "+" in node.op else -1
        case c_ast.Assignment(op="+=" | "-=", lvalue=c_ast.ID(name=name)):
            value = scope.constant(node.rvalue)
            return None if value is None else (name, value if node.op == "+=" else -value)
        case c_ast.Assignment(op="=", lvalue=c_ast.ID(name=name), rvalue=c_ast.BinaryOp()):
            sum_ = node.rvalue
            if sum_.op == "+" and is_id(sum_.right, name):
                value = scope.constant(sum_.left)
            elif sum_.op in "+-" and is_id(sum_.left, name):
                value = scope.constant(sum_.right)
            else:
                return None
            return None if value is None else (name, -value if sum_.op == "-" else value)
    return None


def isolate(node: c_ast.Node, name: str) -> tuple[bool, list[tuple[str, c_ast.Node]]]:
    """Whether a side is the variable, plus or minus terms to move to the other side."""
    moved: list[tuple[str, c_ast.Node]] = []
    while isinstance(node, c_ast.BinaryOp) and node.op in "+-":
        if _mentions(node.right, name):
            if node.op == "-":
                return False, []
            moved.append(("+", node.left))
            node = node.right
        else:
            moved.append((node.op, node.right))
            node = node.left
        if any(_mentions(term, name) for _, term in moved):
            return False, []
    return is_id(node, name), moved


def _mentions(node: c_ast.Node, name: str) -> bool:
    return any(isinstance(n, c_ast.ID) and n.name == name for n in walk(node))


def loop_variables(nodes: Iterable[c_ast.Node]) -> frozenset[str]:
    """Variables declared elsewhere that some loop header of the region counts with."""
    found: set[str] = set()
    for node in (n for root in nodes for n in walk(root) if isinstance(n, c_ast.For)):
        stepped = {
            n.expr.name if isinstance(n, c_ast.UnaryOp) else n.lvalue.name
            for n in parts_of(node.next)
            if (isinstance(n, c_ast.UnaryOp) and isinstance(n.expr, c_ast.ID))
            or (isinstance(n, c_ast.Assignment) and isinstance(n.lvalue, c_ast.ID))
        }
        assigned = {
            part.lvalue.name
            for part in parts_of(node.init)
            if isinstance(part, c_ast.Assignment) and isinstance(part.lvalue, c_ast.ID)
        }
        # With several counters only the first is the loop's variable.
        for part in parts_of(node.next):
            name = _stepped_name(part)
            if name in assigned & stepped:
                found.add(name)
                break
    return frozenset(found)


def _stepped_name(node: c_ast.Node) -> str:
    if isinstance(node, c_ast.UnaryOp) and isinstance(node.expr, c_ast.ID):
        return str(node.expr.name)
    if isinstance(node, c_ast.Assignment) and isinstance(node.lvalue, c_ast.ID):
        return str(node.lvalue.name)
    return ""
