"""The numba form with parallel loops: the outermost loops that are plainly parallel use prange.

A loop is plainly parallel when every array written in its body is read and written there only
through subscripts that hold the loop's variable, bare, at one and the same position, and every
scalar set in its body is set before it is used. Its iterations then touch separate elements.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any


def parallel_source(function: Callable[..., Any]) -> str | None:
    """Text of a module with the function in its prange form, or None where no loop qualifies."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        return None
    parameters = {argument.arg for argument in definition.args.args}
    if not _mark(definition.body, parameters):
        return None
    used = {node.id for node in ast.walk(definition) if isinstance(node, ast.Name)}
    names = sorted(used & set(function.__globals__))
    imports = [f"from {function.__module__} import {', '.join(names)}"] if names else []
    return "\n".join(["from numba import prange", *imports, "", "", ast.unparse(tree), ""])


def _mark(body: list[ast.stmt], parameters: set[str]) -> bool:
    """Mark the outermost plainly parallel loops below; whether there was one."""
    found = False
    for node in body:
        if isinstance(node, ast.For) and _is_range(node.iter):
            if _plainly_parallel(node, parameters):
                assert isinstance(node.iter, ast.Call)
                node.iter.func = ast.Name("prange", ast.Load())
                found = True
            else:
                found = _mark(node.body, parameters) or found
    return found


def _is_range(node: ast.expr) -> bool:
    # prange takes no other step than 1.
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "range"
        and len(node.args) < 3
    )


def _plainly_parallel(loop: ast.For, parameters: set[str]) -> bool:
    if not isinstance(loop.target, ast.Name):
        return False
    variable = loop.target.id
    nodes = [node for statement in loop.body for node in ast.walk(statement)]
    if any(isinstance(node, (ast.While, ast.Break, ast.Return, ast.NamedExpr)) for node in nodes):
        return False
    subscripts = [node for node in nodes if isinstance(node, ast.Subscript)]
    written = {_array(node) for node in subscripts if isinstance(node.ctx, ast.Store)}
    if not all(_disjoint(name, subscripts, variable) for name in written):
        return False
    # An array handed over whole (sliced, or to a call) could be touched anywhere.
    bare = [n.id for n in nodes if isinstance(n, ast.Name)]
    subscripted = [_array(node) for node in subscripts]
    if any(bare.count(name) != subscripted.count(name) for name in written if name):
        return False
    return _scalars_are_private(loop, parameters)


def _array(node: ast.Subscript) -> str:
    return node.value.id if isinstance(node.value, ast.Name) else ""


def _indices(node: ast.Subscript) -> list[ast.expr]:
    return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]


def _disjoint(name: str, subscripts: list[ast.Subscript], variable: str) -> bool:
    """Whether all accesses to the array have the bare variable at a common position."""
    common: set[int] | None = None
    for node in subscripts:
        if _array(node) == name:
            places = {
                place
                for place, index in enumerate(_indices(node))
                if isinstance(index, ast.Name) and index.id == variable
            }
            common = places if common is None else common & places
    return bool(name and common)


def _scalars_are_private(loop: ast.For, parameters: set[str]) -> bool:
    inner = {
        node.target.id
        for node in ast.walk(loop)
        if isinstance(node, ast.For) and isinstance(node.target, ast.Name)
    }
    stored = {
        node.id
        for node in ast.walk(loop)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    } - inner
    if stored & parameters:
        return False
    return all(_set_before_use(loop.body, name) for name in stored)


def _set_before_use(body: list[ast.stmt], name: str) -> bool:
    """Whether no statement can see a value of the name from before the body."""
    for statement in body:
        mentions = [n for n in ast.walk(statement) if isinstance(n, ast.Name) and n.id == name]
        if not mentions:
            continue
        if isinstance(statement, ast.For):
            # It may run zero times, so what follows it has to be looked at all the same.
            in_range = any(
                isinstance(n, ast.Name) and n.id == name for n in ast.walk(statement.iter)
            )
            if in_range or not _set_before_use(statement.body, name):
                return False
        else:
            return isinstance(statement, ast.Assign) and all(
                isinstance(mention.ctx, ast.Store) for mention in mentions
            )
    return True
