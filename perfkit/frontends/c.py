"""The C frontend: regions between ``#pragma scop`` and ``#pragma endscop`` as SCoPs.

A region that cannot be handled is part of the result, with the reason; only a file that cannot be
read or parsed at all is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pycparser import c_ast

from perfkit import config
from perfkit.errors import BudgetExceeded, Location, PerfkitError, UnsupportedError
from perfkit.frontends import c_arrays, c_regions, c_source
from perfkit.frontends.build import build
from perfkit.frontends.c_arrays import CArray
from perfkit.frontends.c_domain import Surveyor
from perfkit.frontends.c_liveness import live_after, mentioned_outside, overwritten
from perfkit.frontends.c_record import Use
from perfkit.frontends.c_regions import Found
from perfkit.frontends.c_statements import StatementReader
from perfkit.frontends.c_types import (
    ArrayType,
    PointerType,
    ScalarType,
    Symbol,
    integer_literal,
    is_integer,
    walk,
)
from perfkit.frontends.syntax import Region, Value, Variable
from perfkit.ir.scop import Scop


@dataclass(frozen=True)
class CRegion:
    """One region of a file.

    Attributes:
        name: unique in the file; the function's name, numbered where it has several regions.
        function: the function around it.
        first_line, last_line: the lines of the two pragmas, counted from 1.
        scop: the program, or None with ``error`` saying why there is none.
        arrays: the arrays of the SCoP as C declares them.
        sizes: the SCoP's parameters with their C types.
        no_overlap: pairs of names whose memory must be tested not to overlap. A name may be a
            scalar variable that lives in memory; its address counts.
        positive: sizes that C itself guarantees to be at least 1 (extents of existing arrays).
        constants: macros that the region's text uses, with the values that they had.
        overwritten: variables that the region always assigns before it reads them.
    """

    name: str
    function: str
    location: Location
    first_line: int
    last_line: int
    scop: Scop | None = None
    error: PerfkitError | None = None
    arrays: tuple[CArray, ...] = ()
    sizes: tuple[tuple[str, str], ...] = ()
    no_overlap: tuple[tuple[str, str], ...] = ()
    positive: frozenset[str] = frozenset()
    constants: tuple[tuple[str, int], ...] = ()
    overwritten: frozenset[str] = frozenset()


@dataclass(frozen=True)
class CFile:
    """A parsed C file.

    ``text`` has one character for each byte of the file (``latin-1``). ``macros`` are the names
    that the program's own ``#define`` lines give a meaning to.
    """

    path: Path
    text: str
    regions: tuple[CRegion, ...]
    macros: frozenset[str]
    flags: tuple[str, ...]


def parse_file(
    path: str | Path,
    *,
    settings: config.Settings | None = None,
    include: Sequence[str] = (),
    defines: Sequence[str] = (),
    undefines: Sequence[str] = (),
    standard: str = "",
) -> CFile:
    """Read a C file and the regions that it marks.

    Args:
        include, defines, undefines, standard: as for the compiler's -I, -D, -U and -std.

    Raises:
        SourceFileError: the file cannot be read.
        CompilerNotFound: there is no C compiler to preprocess it with.
        SyntaxProblem: the file cannot be parsed, or its pragmas do not pair up.
    """
    path = Path(path)
    options = c_source.flags(include, defines, undefines, standard)
    source = c_source.load(path, settings or config.current(), options)
    found = c_regions.find(source.tree, source.path)
    functions = c_regions.defined_functions(source.tree)
    lines = source.text.split("\n")
    names = _names(found)
    regions = tuple(
        _region(f, name, source, functions, lines) for f, name in zip(found, names, strict=True)
    )
    macros = frozenset(source.macros) | source.functions
    return CFile(path, source.text, regions, macros, tuple(options))


def _names(found: Sequence[Found]) -> list[str]:
    functions = [f.function.decl.name for f in found]
    names: list[str] = []
    for k, function in enumerate(functions):
        count = functions[:k].count(function) + 1
        names.append(function if functions.count(function) == 1 else f"{function}_{count}")
    return names


def _region(
    found: Found, name: str, source: c_source.Source, functions: frozenset[str], lines: list[str]
) -> CRegion:
    where = Location(source.path, found.first)
    function = found.function.decl.name
    c_regions.check_lines(found, lines, source.path)
    try:
        return _Reading(found, name, where, source, functions, lines).region()
    except (UnsupportedError, BudgetExceeded) as error:
        if isinstance(error, BudgetExceeded):
            error = UnsupportedError(where, name, str(error))
        return CRegion(name, function, where, found.first, found.last, error=error)


class _Reading:
    """The steps from a marked place to a SCoP."""

    def __init__(
        self, found: Found, name: str, where: Location, source: c_source.Source,
        functions: frozenset[str], lines: list[str],
    ) -> None:  # fmt: skip
        self.found, self.name, self.where, self.source = found, name, where, source
        self.lines = lines
        self.reader = StatementReader(found.scope, functions, found.nodes, lines)

    def region(self) -> CRegion:
        found, reader = self.found, self.reader
        self.check_conditionals()
        body = reader.read()
        self.check_loop_variables()
        self.check_declarations()
        arrays, dtypes, extents = self.declared_arrays()
        uses = reader.record.uses
        sizes = {n: u for n, u in uses.items() if _is_size(u)}
        surveyor = Surveyor({n: _dtype(u.symbol) for n, u in sizes.items()})
        surveyor.discharge(reader.record.obligations)
        shapes: dict[str, c_arrays.Shaped] = {}
        for array in arrays:
            references = [r for r in reader.record.references if r.element.array == array.name]
            shapes[array.name] = c_arrays.shape_of(array, extents[array.name], references, surveyor)
        variables = self.scalars(uses)
        live = {a.name: self.array_live(a) for a in arrays}
        variables += c_arrays.array_variables(shapes, dtypes, live)
        region = Region(
            self.name,
            tuple(variables),
            c_arrays.reshaped(body, shapes),
            self.where,
            tuple(surveyor.assumed),
        )
        scop = build(region)
        return CRegion(
            self.name,
            found.function.decl.name,
            self.where,
            found.first,
            found.last,
            scop,
            None,
            arrays,
            tuple((n, _spelling(u.symbol)) for n, u in sizes.items()),
            self.overlaps(arrays, uses, scop),
            self.positive_sizes(arrays, frozenset(sizes)),
            self.constants(),
            frozenset(a.name for a in scop.arrays if not a.rank and overwritten(found, a.name)),
        )

    # -- checks ------------------------------------------------------------------------------

    def check_conditionals(self) -> None:
        for number in range(self.found.first + 1, self.found.last):
            if re.match(r"\s*#\s*(if|ifdef|ifndef|elif|else)\b", self.lines[number - 1]):
                raise UnsupportedError(
                    Location(self.source.path, number),
                    "conditional compilation",
                    "the generated code would hold for one of its branches only",
                )

    def check_loop_variables(self) -> None:
        for name in sorted(self.reader.loop_variables):
            symbol = self.found.scope.lookup(name)
            if symbol is not None and live_after(self.found, symbol):
                raise UnsupportedError(
                    self.where,
                    f"loop variable {name}",
                    "its value may be read after the region; declare it in the loop",
                )

    def check_declarations(self) -> None:
        declared = {n.name for n in self.found.nodes if isinstance(n, c_ast.Decl)}
        for node in (n for root in self.found.after for n in walk(root)):
            if isinstance(node, c_ast.ID) and node.name in declared:
                raise UnsupportedError(
                    self.where,
                    node.name,
                    "is declared inside the region and used after it; declare it before",
                )

    # -- variables ---------------------------------------------------------------------------

    def declared_arrays(
        self,
    ) -> tuple[tuple[CArray, ...], dict[str, str], dict[str, list[Value | None]]]:
        arrays: list[CArray] = []
        dtypes: dict[str, str] = {}
        extents: dict[str, list[Value | None]] = {}
        for name, use in list(self.reader.record.uses.items()):
            symbol = use.symbol
            if not isinstance(symbol.type, PointerType | ArrayType):
                continue
            array, element, nodes = c_arrays.declared(symbol)
            c_arrays.check_extents(self.found, symbol, nodes)
            arrays.append(array)
            dtypes[name] = element.dtype
            extents[name] = c_arrays.read_extents(self.reader, symbol, nodes)
        return tuple(arrays), dtypes, extents

    def scalars(self, uses: Mapping[str, Use]) -> list[Variable]:
        variables: list[Variable] = []
        for name, use in uses.items():
            if not isinstance(use.symbol.type, ScalarType):
                continue
            dtype = _dtype(use.symbol)
            if use.written:
                live = live_after(self.found, use.symbol)
                variables.append(Variable(name, "variable", dtype, (), live))
            else:
                variables.append(Variable(name, "size" if _is_size(use) else "scalar", dtype))
        return variables

    def array_live(self, array: CArray) -> bool:
        """Whether anybody may read the array after the region."""
        return not array.automatic or mentioned_outside(self.found, array.name)

    def overlaps(
        self, arrays: tuple[CArray, ...], uses: Mapping[str, Use], scop: Scop
    ) -> tuple[tuple[str, str], ...]:
        """Arrays, and variables that a pointer could point to."""
        places = list(arrays)
        for name, use in uses.items():
            symbol = use.symbol
            if isinstance(symbol.type, ScalarType) and self.in_memory(symbol):
                places.append(
                    CArray(
                        name, symbol.type.spelling, 0, object=True,
                        automatic=symbol.storage in ("local", "parameter"),
                    )
                )  # fmt: skip
        return c_arrays.may_overlap(places, scop.written)

    def in_memory(self, symbol: Symbol) -> bool:
        if symbol.storage in ("global", "static"):
            return True
        return any(
            isinstance(n, c_ast.UnaryOp)
            and n.op == "&"
            and isinstance(n.expr, c_ast.ID)
            and n.expr.name == symbol.name
            for n in walk(self.found.function.body)
        )

    def positive_sizes(self, arrays: tuple[CArray, ...], sizes: frozenset[str]) -> frozenset[str]:
        """Sizes that stand alone as an extent of a variable-length array."""
        found: set[str] = set()
        for array in arrays:
            symbol = self.reader.record.uses[array.name].symbol
            for extent in c_arrays.declared(symbol)[2]:
                if isinstance(extent, c_ast.ID) and extent.name in sizes:
                    found.add(extent.name)
        return frozenset(found)

    def constants(self) -> tuple[tuple[str, int], ...]:
        """Macros with integer values in the region's text: the result holds for those values."""
        text = "\n".join(self.lines[self.found.first : self.found.last - 1])
        todo = re.findall(r"[A-Za-z_]\w*", _without_comments(text))
        known: dict[str, int] = {}
        seen: set[str] = set()
        while todo:
            name = todo.pop()
            body = self.source.macros.get(name)
            if name in seen or body is None:
                continue
            seen.add(name)
            number = re.fullmatch(r"\(*\s*(-?)\s*(\d\w*)\s*\)*", body)
            if number and re.fullmatch(r"(0[xX][0-9a-fA-F]+|\d+)[uUlL]*", number[2]):
                value = integer_literal(number[2])[0]
                known[name] = -value if number[1] else value
            else:
                todo += re.findall(r"[A-Za-z_]\w*", body)
        return tuple(sorted(known.items()))


def _without_comments(text: str) -> str:
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:[^"\\\n]|\\.)*"', " ", text, flags=re.S)


def _is_size(use: Use) -> bool:
    ctype = use.symbol.type
    if not isinstance(ctype, ScalarType) or not is_integer(ctype.dtype) or ctype.dtype == "bool":
        return False
    return use.index and not use.written


def _dtype(symbol: Symbol) -> str:
    assert isinstance(symbol.type, ScalarType)
    return symbol.type.dtype


def _spelling(symbol: Symbol) -> str:
    assert isinstance(symbol.type, ScalarType)
    return symbol.type.spelling


__all__ = ["CArray", "CFile", "CRegion", "parse_file"]
