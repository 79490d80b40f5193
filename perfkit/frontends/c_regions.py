"""Where the regions of a C file are: ``#pragma scop`` ... ``#pragma endscop``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pycparser import c_ast

from perfkit.errors import Location, SyntaxProblem
from perfkit.frontends.c_types import Scope, location, walk

_PRAGMA = re.compile(r"\s*#\s*pragma\s+(scop|endscop)\b[^\\]*$")


@dataclass(frozen=True)
class Found:
    """A marked region.

    Attributes:
        first, last: the lines of the two pragmas.
        scope: the names visible where the region starts.
        nodes: its statements.
        after: the statements that follow it in its block.
        loops: the loops of the function around it, innermost first, and for every enclosing
            block what follows; together they are what may run after the region.
    """

    function: c_ast.FuncDef
    first: int
    last: int
    scope: Scope
    nodes: tuple[c_ast.Node, ...]
    after: tuple[c_ast.Node, ...]
    around: tuple[Around, ...]

    @property
    def in_loop(self) -> bool:
        return any(isinstance(a.node, c_ast.For | c_ast.While | c_ast.DoWhile) for a in self.around)


@dataclass(frozen=True)
class Around:
    """A statement that encloses the region, and what follows it in its own block."""

    node: c_ast.Node
    after: tuple[c_ast.Node, ...]


def global_scope(tree: c_ast.FileAST) -> Scope:
    scope = Scope()
    for node in tree.ext:
        if isinstance(node, c_ast.Decl | c_ast.Typedef):
            scope.declare(node)
        elif isinstance(node, c_ast.FuncDef):
            scope.declare(node.decl)
    return scope


def defined_functions(tree: c_ast.FileAST) -> frozenset[str]:
    """Functions with a body in this file: their names do not mean the C library's."""
    return frozenset(n.decl.name for n in tree.ext if isinstance(n, c_ast.FuncDef))


def find(tree: c_ast.FileAST, path: str) -> tuple[Found, ...]:
    """The regions of the file itself, in order; those of included files are not its own.

    Raises:
        SyntaxProblem: a pragma without its partner, nested, or outside a function.
    """
    top = global_scope(tree)
    found: list[Found] = []
    for node in tree.ext:
        if isinstance(node, c_ast.FuncDef):
            found += _in_function(node, top, path)
        elif isinstance(node, c_ast.Pragma) and _kind(node, path):
            raise SyntaxProblem(
                location(node), f"#pragma {_kind(node, path)}", "stands outside a function"
            )
    return tuple(found)


def _in_function(function: c_ast.FuncDef, top: Scope, path: str) -> Iterator[Found]:
    scope = Scope(top)
    declarator = function.decl.type
    if isinstance(declarator, c_ast.FuncDecl) and declarator.args is not None:
        for parameter in declarator.args.params:
            if isinstance(parameter, c_ast.Decl):
                scope.declare(parameter, parameter=True)
    yield from _in_block(function, function.body, Scope(scope), (), path)


def _in_block(
    function: c_ast.FuncDef, block: c_ast.Compound, scope: Scope, around: tuple[Around, ...],
    path: str,
) -> Iterator[Found]:  # fmt: skip
    items = tuple(block.block_items or ())
    start: int | None = None
    inner: Scope | None = None
    for k, item in enumerate(items):
        kind = _kind(item, path)
        if kind == "scop":
            if start is not None:
                raise SyntaxProblem(location(item), "#pragma scop", "stands inside another region")
            start, inner = k, _copy(scope)
        elif kind == "endscop":
            if start is None or inner is None:
                raise SyntaxProblem(
                    location(item), "#pragma endscop", "has no #pragma scop before it in its block"
                )
            yield Found(
                function, location(items[start]).line, location(item).line, inner,
                items[start + 1 : k], items[k + 1 :], around,
            )  # fmt: skip
            start = None
        elif start is not None:
            _refuse_nested(item, path)
        else:
            yield from _in_statement(function, item, items[k + 1 :], scope, around, path)
        if isinstance(item, c_ast.Decl | c_ast.Typedef):
            scope.declare(item)
    if start is not None:
        raise SyntaxProblem(
            location(items[start]), "#pragma scop", "has no #pragma endscop after it in its block"
        )


def _in_statement(
    function: c_ast.FuncDef, node: c_ast.Node, after: tuple[c_ast.Node, ...], scope: Scope,
    around: tuple[Around, ...], path: str,
) -> Iterator[Found]:  # fmt: skip
    deeper = (Around(node, after), *around)
    if isinstance(node, c_ast.Compound):
        yield from _in_block(function, node, Scope(scope), deeper, path)
        return
    inner = Scope(scope)
    if isinstance(node, c_ast.For) and isinstance(node.init, c_ast.DeclList):
        for declaration in node.init.decls:
            inner.declare(declaration)
    for _, child in node.children():
        if isinstance(child, c_ast.Pragma) and _kind(child, path):
            raise SyntaxProblem(
                location(child), f"#pragma {_kind(child, path)}", "put braces around the region"
            )
        if isinstance(child, c_ast.Node) and not isinstance(child, c_ast.DeclList):
            yield from _in_statement(function, child, (), inner, deeper, path)


def _refuse_nested(item: c_ast.Node, path: str) -> None:
    for node in walk(item):
        kind = _kind(node, path)
        if kind:
            why = (
                "stands inside another region"
                if kind == "scop"
                else "ends the region in another block than it starts in"
            )
            raise SyntaxProblem(location(node), f"#pragma {kind}", why)


def _kind(node: c_ast.Node, path: str) -> str:
    if not isinstance(node, c_ast.Pragma) or location(node).file != path:
        return ""
    word = (node.string or "").split()[:1]
    return word[0] if word in (["scop"], ["endscop"]) else ""


def _copy(scope: Scope) -> Scope:
    """A snapshot: declarations after this point do not enter it."""
    copy = Scope(scope.parent)
    copy.names = dict(scope.names)
    return copy


def check_lines(found: Found, lines: list[str], path: str) -> None:
    """Refuse pragmas that are not on lines of their own in the original text."""
    for number, kind in ((found.first, "scop"), (found.last, "endscop")):
        line = lines[number - 1] if 0 < number <= len(lines) else ""
        match = _PRAGMA.match(line.rstrip("\r\n"))
        if match is None or match[1] != kind:
            raise SyntaxProblem(
                Location(path, number),
                f"#pragma {kind}",
                "does not stand on a line of its own in the file (#line or a macro moved it)",
            )
