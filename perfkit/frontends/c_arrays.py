"""The arrays of a C region: shapes, and which of them may overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pycparser import c_ast

from perfkit.errors import Location, UnsupportedError
from perfkit.frontends import c_delinearize
from perfkit.frontends.c_domain import Surveyor, value_of
from perfkit.frontends.c_record import Reference
from perfkit.frontends.c_regions import Found
from perfkit.frontends.c_statements import StatementReader
from perfkit.frontends.c_types import (
    ArrayType,
    CType,
    PointerType,
    ScalarType,
    Symbol,
    location,
    refuse,
    walk,
)
from perfkit.frontends.names import data_in
from perfkit.frontends.syntax import (
    Assign,
    Block,
    Declare,
    Element,
    For,
    If,
    Number,
    Operation,
    Stmt,
    Value,
    Variable,
)


@dataclass(frozen=True, slots=True)
class CArray:
    """How a region's array exists in C.

    Attributes:
        element: the element type in C, without qualifiers.
        dimensions: of the C declaration, 1 for a pointer to numbers.
        const: the elements may not be written through this name.
        object: it is an array with storage of its own, not a pointer.
        automatic: that storage belongs to the running function.
        parameter: it is a pointer that the caller passed in.
        restrict: declared so.
    """

    name: str
    element: str
    dimensions: int
    const: bool = False
    object: bool = False
    automatic: bool = False
    parameter: bool = False
    restrict: bool = False


def declared(symbol: Symbol) -> tuple[CArray, ScalarType, list[c_ast.Node | None]]:
    """The array that a symbol names, its element type and the extents in its declaration."""
    extents: list[c_ast.Node | None] = []
    ctype: CType = symbol.type
    is_object = isinstance(ctype, ArrayType)
    restrict = isinstance(ctype, PointerType) and ctype.restrict
    while isinstance(ctype, PointerType | ArrayType):
        if isinstance(ctype, PointerType):
            extents.append(ctype.extent)
            ctype = ctype.target
        else:
            extents.append(ctype.extent)
            ctype = ctype.element
    assert isinstance(ctype, ScalarType)  # the reader checked it at every access
    array = CArray(
        symbol.name,
        ctype.spelling,
        len(extents),
        ctype.const,
        is_object,
        is_object and symbol.storage == "local",
        symbol.storage == "parameter",
        restrict,
    )
    return array, ctype, extents


def check_extents(found: Found, symbol: Symbol, extents: Iterable[c_ast.Node | None]) -> None:
    """Refuse an array whose declared extents name variables that were assigned since."""
    for extent in extents:
        for node in walk(extent) if extent is not None else ():
            if isinstance(node, c_ast.ID) and _assigned_since(found, node.name, symbol.line):
                raise refuse(
                    extent or node, symbol.name,
                    f"its extent {node.name} is assigned again after the declaration",
                )  # fmt: skip


def _assigned_since(found: Found, name: str, line: int) -> bool:
    for node in walk(found.function.body):
        target: c_ast.Node | None = None
        if isinstance(node, c_ast.Assignment):
            target = node.lvalue
        elif isinstance(node, c_ast.UnaryOp) and node.op in ("p++", "p--", "++", "--", "&"):
            target = node.expr
        if isinstance(target, c_ast.ID) and target.name == name and location(node).line >= line:
            return True
    return False


def read_extents(
    reader: StatementReader, symbol: Symbol, extents: Sequence[c_ast.Node | None]
) -> list[Value | None]:
    """The declared extents as values; names in them become sizes of the region."""
    path, reader.path = reader.path, ()
    try:
        return [None if e is None else reader.subscript(e, symbol.name) for e in extents]
    finally:
        reader.path = path


# -- shapes ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shaped:
    """An array's shape, and the new subscripts of its accesses where they changed."""

    shape: tuple[Value, ...]
    indices: Mapping[Value, tuple[Value, ...]]


def shape_of(
    array: CArray,
    extents: Sequence[Value | None],
    references: Sequence[Reference],
    surveyor: Surveyor,
) -> Shaped:
    """The shape in terms of sizes.

    A declared extent is used as it is, since accesses outside of it have no meaning in C. The
    extent that a pointer does not declare is the smallest affine one that holds every access.

    Raises:
        UnsupportedError: the accesses fit no shape.
    """
    if array.dimensions == 1:
        found = c_delinearize.plan(references, surveyor)
        if found is not None:
            firsts = [(found.indices[r.element.indices[0]][0], r) for r in references]
            outer = _outer(array, firsts, surveyor)
            return Shaped((outer, *found.rows), found.indices)
        for r in references:
            if surveyor.cases(r.element.indices[0], r.path) is None:
                data = data_in(r.element.indices[0])
                raise UnsupportedError(
                    r.location,
                    f"subscript of {array.name}",
                    f"is not affine: it depends on data ({data}[...])" if data
                    else "is not affine, and the accesses do not agree on a shape with rows",
                )
    missing = [k for k, e in enumerate(extents) if e is None]
    if missing and missing != [0]:
        raise UnsupportedError(references[0].location, array.name, "has no extent")
    known = tuple(e for e in extents if e is not None)
    firsts = [(r.element.indices[0], r) for r in references]
    _check_rows(array, extents[1:], references, surveyor)
    if not missing and (array.object or _holds(known[0], firsts, surveyor)):
        return Shaped(known, {})
    return Shaped((_outer(array, firsts, surveyor), *(known if missing else known[1:])), {})


def _check_rows(
    array: CArray, rows: Sequence[Value | None], references: Sequence[Reference], surveyor: Surveyor
) -> None:
    """Ask that no subscript leave its row: ``A[0][i]`` would be an element of another row."""
    for k, row in enumerate(rows, 1):
        assert row is not None  # only the first extent can be missing
        last = Operation("int64", "sub", (row, Number("int64", 1)))
        for index, path in dict.fromkeys((r.element.indices[k], r.path) for r in references):
            above = Operation("int64", "sub", (last, index))
            for claim in (index, above):
                if surveyor.require(claim, path) == "impossible":
                    where = next(r for r in references if r.element.indices[k] == index)
                    raise UnsupportedError(
                        where.location, f"subscript of {array.name}", "leaves its row of the array"
                    )


def _holds(extent: Value, firsts: Sequence[tuple[Value, Reference]], surveyor: Surveyor) -> bool:
    """Whether the extent that a parameter declares can be relied on, perhaps after a test."""
    if surveyor.cases(extent, ()) is None:
        return False
    last = Operation("int64", "sub", (extent, Number("int64", 1)))
    claims = [
        (Operation("int64", "sub", (last, value)), r.path)
        for value, r in firsts
        if surveyor.cases(value, r.path) is not None
    ]
    return surveyor.require_all(claims)


def _outer(array: CArray, firsts: Sequence[tuple[Value, Reference]], surveyor: Surveyor) -> Value:
    for value, reference in firsts:
        if surveyor.require(value, reference.path) == "impossible":
            raise UnsupportedError(
                reference.location, f"subscript of {array.name}", "may be negative"
            )
    extent = surveyor.extent([(value, reference.path) for value, reference in firsts])
    if extent is None:
        raise UnsupportedError(
            firsts[0][1].location, array.name, "how far it is accessed has no affine formula"
        )
    return value_of(extent)


# -- overlap ---------------------------------------------------------------------------------


def may_overlap(arrays: Sequence[CArray], written: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """Pairs that only a test of their addresses can tell apart, where one of them is written."""
    pairs = []
    for k, a in enumerate(arrays):
        for b in arrays[k + 1 :]:
            if (a.name in written or b.name in written) and not _distinct(a, b, written):
                pairs.append((a.name, b.name))
    return tuple(pairs)


def _distinct(a: CArray, b: CArray, written: frozenset[str]) -> bool:
    if a.object and b.object:
        return True
    # What is written through a restrict pointer, or read through one and written through another
    # name, would be undefined if they overlapped.
    if a.restrict or b.restrict:
        return True
    # A parameter's value is older than this call's own storage.
    return (a.parameter and b.automatic) or (b.parameter and a.automatic)


# -- rewriting -------------------------------------------------------------------------------


def map_elements(body: Iterable[Stmt], change: Callable[[Element], Element]) -> tuple[Stmt, ...]:
    """Rebuild statements with every array access changed."""

    def value(v: Value) -> Value:
        match v:
            case Element():
                return change(replace(v, indices=tuple(map(value, v.indices))))
            case Operation():
                return replace(v, args=tuple(map(value, v.args)))
        return v

    def statement(s: Stmt) -> Stmt:
        match s:
            case Assign():
                target = change(s.target) if isinstance(s.target, Element) else s.target
                return replace(s, target=target, value=value(s.value))
            case Declare():
                return replace(s, shape=tuple(map(value, s.shape)))
            case For():
                inner = map_elements(s.body, change)
                return replace(s, first=value(s.first), last=value(s.last), body=inner)
            case If():
                return replace(
                    s,
                    condition=value(s.condition),
                    then=map_elements(s.then, change),
                    otherwise=map_elements(s.otherwise, change),
                )
            case Block():
                return Block(map_elements(s.body, change))

    return tuple(map(statement, body))


def reshaped(body: Iterable[Stmt], shapes: Mapping[str, Shaped]) -> tuple[Stmt, ...]:
    """The statements with the new subscripts of delinearised arrays."""

    def change(element: Element) -> Element:
        shaped = shapes.get(element.array)
        if shaped is None or not shaped.indices:
            return element
        return replace(element, indices=shaped.indices[element.indices[0]])

    return map_elements(body, change)


def array_variables(
    shapes: Mapping[str, Shaped], dtypes: Mapping[str, str], live: Mapping[str, bool]
) -> list[Variable]:
    return [Variable(n, "array", dtypes[n], s.shape, live[n]) for n, s in shapes.items()]


__all__ = [
    "CArray", "Location", "Shaped", "array_variables", "check_extents", "declared",
    "map_elements", "may_overlap", "read_extents", "reshaped", "shape_of",
]  # fmt: skip
