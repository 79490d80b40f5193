"""The Python frontend: plain functions over arrays, typed by example.

The source is read with :mod:`inspect` and :mod:`ast` and never run. Element types and ranks come
from actual arguments; every extent is a symbol, so one SCoP serves all sizes.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from perfkit.errors import Location, UnsupportedError
from perfkit.frontends import promotion
from perfkit.frontends.build import build
from perfkit.frontends.promotion import Type, Typed
from perfkit.frontends.python_scan import Scan, scan
from perfkit.frontends.python_statements import StatementTranslator
from perfkit.frontends.python_values import Names
from perfkit.frontends.syntax import Name, Region, Variable
from perfkit.ir.expr import DTYPES, INTEGERS
from perfkit.ir.scop import Scop
from perfkit.runtime.signature import Parameter, Signature


@dataclass(frozen=True)
class Parsed:
    """A region and how a call binds to it; ``written`` marks are set by :func:`from_function`."""

    region: Region
    parameters: tuple[Parameter, ...]
    sizes: tuple[str, ...]


def from_function(
    function: Callable[..., Any], *args: Any, **kwargs: Any
) -> tuple[Scop, Signature]:
    """The SCoP of a function and the signature of its kernels.

    ``args`` and ``kwargs`` are an example call; only types, ranks and element types matter. Raises
    UnsupportedError (file, line, construct, remedy) for what is outside the supported subset, and
    TypeError when the arguments do not fit the function.
    """
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    parsed = parse(function, bound.arguments)
    scop = build(parsed.region, checked_calls=True)
    written = scop.written
    parameters = tuple(
        replace(p, written=True) if p.kind == "array" and p.name in written else p
        for p in parsed.parameters
    )
    return scop, Signature(parsed.region.name, parameters, scop.parameters)


def parse(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Parsed:
    """Translate a function for arguments of these types."""
    tree, file, offset = _source(function)
    location = Location(file, tree.lineno + offset)
    if tree.args.vararg or tree.args.kwarg:
        raise UnsupportedError(location, f"def {tree.name}", "takes *args or **kwargs; name them")
    order = [a.arg for a in (*tree.args.posonlyargs, *tree.args.args, *tree.args.kwonlyargs)]
    kinds = {name: _kind(name, arguments[name], location) for name in order}
    ranks = {name: kind for name, (_, kind) in kinds.items() if kind is not None}
    whole = {n for n, (t, rank) in kinds.items() if rank is None and t.dtype in INTEGERS}
    found = scan(tree, ranks, whole)
    for name, node in found.assigned.items():
        where = Location(file, getattr(node, "lineno", 0) + offset)
        if name in ranks:
            raise UnsupportedError(where, name, "is an array argument; assign to its elements")
        if name in found.loops:
            raise UnsupportedError(where, name, "is a loop variable too; use another name")
    for name, node in found.loops.items():
        if name in kinds:
            where = Location(file, getattr(node, "lineno", 0) + offset)
            raise UnsupportedError(where, f"loop over {name}", "hides an argument; rename it")
    binding = _Binding(order, kinds, found)
    names = binding.names()
    names.outer = _outer(function)
    translator = StatementTranslator(names, file, offset)
    body, results = translator.translate(tree, found, binding.initial())
    variables = [*binding.variables, *(Variable(n, "variable", d) for n, d in results)]
    parameters = [*binding.parameters, *(Parameter(n, "result", d) for n, d in results)]
    region = Region(tree.name, tuple(variables), body, location, tuple(translator.assumptions))
    sizes = tuple(v.name for v in variables if v.kind == "size")
    return Parsed(region, tuple(parameters), sizes)


def _source(function: Callable[..., Any]) -> tuple[ast.FunctionDef, str, int]:
    """The definition, its file, and what to add to its line numbers."""
    plain = inspect.unwrap(function)
    name = getattr(plain, "__name__", repr(plain))
    if not inspect.isfunction(plain):
        raise UnsupportedError(Location(), name, "is not a Python function")
    file = plain.__code__.co_filename
    try:
        lines, first = inspect.getsourcelines(plain)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, SyntaxError, TypeError):
        raise UnsupportedError(
            Location(file, plain.__code__.co_firstlineno), name,
            "its source cannot be read; define it with def in a file",
        ) from None  # fmt: skip
    match tree.body:
        case [ast.FunctionDef() as definition]:
            return definition, file, first - 1
    raise UnsupportedError(Location(file, first), name, "is not a plain def")


def _outer(function: Callable[..., Any]) -> Mapping[str, Any]:
    plain = inspect.unwrap(function)
    found = inspect.getclosurevars(plain)
    return {**plain.__globals__, **found.nonlocals}


def _kind(name: str, value: Any, location: Location) -> tuple[Type, int | None]:
    """The type of an argument, and its rank when it is an array."""
    if isinstance(value, (bool, int, float, np.generic)):
        try:
            return promotion.literal(value).type, None  # type: ignore[arg-type]
        except promotion.TypeConflict as error:
            raise UnsupportedError(location, f"argument {name}", str(error)) from None
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is None or shape is None:
        raise UnsupportedError(
            location,
            f"argument {name}",
            f"{type(value).__name__} is neither an array nor a number; pass a NumPy array, a "
            "tensor or a number",
        )
    element = str(dtype).removeprefix("torch.")
    if element not in DTYPES:
        raise UnsupportedError(
            location, f"argument {name}", f"elements of type {element} are not supported"
        )
    if len(shape) == 0:
        raise UnsupportedError(
            location, f"argument {name}", "has no dimension; pass a number or a 1-d array"
        )
    return Type(element, False), len(shape)


class _Binding:
    """Arguments as region variables and kernel parameters, with a symbol for every extent."""

    def __init__(
        self, order: Sequence[str], kinds: Mapping[str, tuple[Type, int | None]], found: Scan
    ) -> None:
        self.kinds = kinds
        self.scan = found
        self.taken = {*order, *found.assigned, *found.loops}
        self.symbols = self.name_dimensions(order)
        self.variables: list[Variable] = []
        self.parameters: list[Parameter] = []
        for name in order:
            self.add(name)

    def name_dimensions(self, order: Sequence[str]) -> dict[tuple[str, int], str]:
        symbols: dict[tuple[str, int], str] = {}
        for alias, dimension in self.scan.aliases.items():
            symbols.setdefault(dimension, alias)
        self.taken |= set(symbols.values())
        for name in order:
            for k in range(self.kinds[name][1] or 0):
                if (name, k) not in symbols:
                    symbols[name, k] = self.fresh(f"{name}_{k}")
        return symbols

    def fresh(self, base: str) -> str:
        name = base
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def add(self, name: str) -> None:
        kind, rank = self.kinds[name]
        if rank is not None:
            shape = tuple(self.symbols[name, k] for k in range(rank))
            self.variables += [Variable(symbol, "size", "int64") for symbol in shape]
            extents = tuple(Name("int64", symbol) for symbol in shape)
            self.variables.append(Variable(name, "array", kind.dtype, extents))
            self.parameters.append(Parameter(name, "array", kind.dtype, rank, shape))
        else:
            role = "size" if self.is_size(name) else "scalar"
            self.variables.append(Variable(name, role, kind.dtype))  # type: ignore[arg-type]
            self.parameters.append(Parameter(name, role, kind.dtype))  # type: ignore[arg-type]

    def is_size(self, name: str) -> bool:
        return self.kinds[name][0].dtype in INTEGERS and name in self.scan.index

    def names(self) -> Names:
        names = Names()
        for name, (kind, rank) in self.kinds.items():
            if rank is not None:
                symbols = [self.symbols[name, k] for k in range(rank)]
                names.arrays[name] = tuple(Name("int64", symbol) for symbol in symbols)
                names.dtypes[name] = kind.dtype
                names.natural |= set(symbols)
            elif name not in self.scan.assigned:
                names.values[name] = Typed(Name(kind.dtype, name), kind.weak)
                if self.is_size(name):
                    names.natural.add(name)
        for alias, dimension in self.scan.aliases.items():
            names.values[alias] = Typed(Name("int64", self.symbols[dimension]), True)
        for name in self.scan.assigned:
            # An argument that is assigned lives on as a variable of its own.
            place = self.fresh(f"{name}_") if name in self.kinds else name
            names.variables[name] = Name("int64", place)
        return names

    def initial(self) -> dict[str, Typed]:
        """The arguments that the function assigns, with the values they start from."""
        return {
            name: Typed(Name(kind.dtype, name), kind.weak)
            for name, (kind, rank) in self.kinds.items()
            if rank is None and name in self.scan.assigned
        }
