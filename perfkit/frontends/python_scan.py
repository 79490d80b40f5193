"""What can be told of a Python function before its values have types: names and their roles."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass
class Scan:
    """The names of a function body.

    ``assigned`` and ``loops`` map names to the first node that binds them. ``aliases`` maps names
    to the one array dimension they stand for. ``index`` holds the names that bounds, subscripts
    and conditions on integers depend on.
    """

    assigned: dict[str, ast.AST] = field(default_factory=dict)
    loops: dict[str, ast.AST] = field(default_factory=dict)
    aliases: dict[str, tuple[str, int]] = field(default_factory=dict)
    index: set[str] = field(default_factory=set)


def scan(function: ast.FunctionDef, ranks: dict[str, int], integers: set[str]) -> Scan:
    """``ranks``: of the array arguments; ``integers``: the integer arguments."""
    result = Scan()
    counts: dict[str, int] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.For) and isinstance(node.target, ast.Name):
            result.loops.setdefault(node.target.id, node)
        for target in _targets(node):
            if isinstance(target, ast.Name):
                result.assigned.setdefault(target.id, target)
                counts[target.id] = counts.get(target.id, 0) + 1
    arguments = {a.arg for a in function.args.args}
    for statement in function.body:
        for name, dimension in _dimensions(statement, ranks):
            if counts.get(name) == 1 and name not in arguments and name not in result.loops:
                result.aliases[name] = dimension
                result.assigned.pop(name, None)
    result.index = _index_names(function, ranks, integers, result)
    return result


def pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    """``a, b = x, y`` as its single assignments."""
    match target, value:
        case ast.Tuple(elts=names), ast.Tuple(elts=values) if len(names) == len(values):
            for t, v in zip(names, values, strict=True):
                yield from pairs(t, v)
        case _:
            yield target, value


def dimension_of(node: ast.expr, ranks: dict[str, int]) -> tuple[str, int] | None:
    """The array and dimension that ``A.shape[k]`` or ``len(A)`` names."""
    match node:
        case ast.Subscript(
            value=ast.Attribute(value=ast.Name(id=array), attr="shape"),
            slice=ast.Constant(value=int() as k),
        ) if array in ranks and 0 <= k < ranks[array]:
            return array, k
        case ast.Call(func=ast.Name(id="len"), args=[ast.Name(id=array)]) if ranks.get(array):
            return array, 0
    return None


def _dimensions(
    statement: ast.stmt, ranks: dict[str, int]
) -> Iterator[tuple[str, tuple[str, int]]]:
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return
    for target, value in pairs(statement.targets[0], statement.value):
        match target, value:
            case ast.Tuple(elts=names), ast.Attribute(value=ast.Name(id=array), attr="shape"):
                if ranks.get(array) == len(names):
                    for k, name in enumerate(names):
                        if isinstance(name, ast.Name):
                            yield name.id, (array, k)
            case ast.Name(id=name), _:
                dimension = dimension_of(value, ranks)
                if dimension is not None:
                    yield name, dimension


def _targets(node: ast.AST) -> Iterator[ast.expr]:
    match node:
        case ast.Assign(targets=targets):
            for target in targets:
                yield from _flat(target)
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
            yield target


def _flat(target: ast.expr) -> Iterator[ast.expr]:
    if isinstance(target, (ast.Tuple, ast.List)):
        for element in target.elts:
            yield from _flat(element)
    else:
        yield target


def _index_names(
    function: ast.FunctionDef, ranks: dict[str, int], integers: set[str], found: Scan
) -> set[str]:
    index: set[str] = set()
    flows: list[tuple[str, frozenset[str]]] = []
    for node in ast.walk(function):
        match node:
            case ast.For(iter=iterable):
                index |= _names(iterable)
            case ast.Subscript(slice=subscript):
                index |= _names(subscript)
            case ast.Assert(test=test):
                index |= _names(test)
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    flows += [
                        (t.id, _names(v)) for t, v in pairs(target, value)
                        if isinstance(t, ast.Name)
                    ]  # fmt: skip
            case (
                ast.AugAssign(target=ast.Name(id=name), value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                flows.append((name, _names(value)))
    whole = integers | found.loops.keys() | found.aliases.keys()
    while True:
        before = len(index)
        for name, sources in flows:
            if name in index:
                index |= sources
        for node in ast.walk(function):
            if isinstance(node, ast.Compare) and not _reads_data(node, ranks):
                names = _names(node) - ranks.keys()
                if names <= whole | index:
                    index |= names
        if len(index) == before:
            return index


def _reads_data(node: ast.AST, ranks: dict[str, int]) -> bool:
    return any(
        isinstance(n, ast.Subscript) and isinstance(n.value, (ast.Name, ast.Subscript))
        for n in ast.walk(node)
    ) or any(isinstance(n, ast.Constant) and isinstance(n.value, float) for n in ast.walk(node))


def _names(node: ast.AST | Iterable[ast.AST]) -> frozenset[str]:
    nodes = [node] if isinstance(node, ast.AST) else node
    return frozenset(n.id for m in nodes for n in ast.walk(m) if isinstance(n, ast.Name))
