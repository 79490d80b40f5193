"""The small loop language that frontends translate into; :mod:`perfkit.frontends.build` lowers it.

A frontend only parses and types its own language: it produces these nodes, with C's or Python's
conversions already explicit (:class:`perfkit.ir.expr.Cast`), and leaves everything polyhedral to
``build``: recognising affine expressions, bounds and conditions, naming statements and loops,
privatising locals, checking that the region is a SCoP.

Integer expressions in loop bounds, conditions and subscripts are ordinary value expressions here;
``build`` decides whether they are affine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from perfkit.errors import Location


@dataclass(frozen=True, slots=True)
class Value:
    """Base class of value syntax. ``dtype`` is the type of the value after promotion."""

    dtype: str


@dataclass(frozen=True, slots=True)
class Number(Value):
    value: int | float | bool


@dataclass(frozen=True, slots=True)
class Name(Value):
    """A loop variable, a size, a scalar argument or a scalar local."""

    name: str


@dataclass(frozen=True, slots=True)
class Element(Value):
    """``array[indices]``."""

    array: str
    indices: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Operation(Value):
    """``op`` is a UnaryOp, BinaryOp or CompareOp of perfkit.ir.expr, 'select', 'cast' or 'call'.

    'select' has (condition, if_true, if_false); 'call' has ``function`` set.
    """

    op: str
    args: tuple[Value, ...]
    function: str = ""


@dataclass(frozen=True, slots=True)
class Assign:
    """``target = value``; compound assignments come written out."""

    target: Name | Element
    value: Value
    location: Location
    text: str = ""


@dataclass(frozen=True, slots=True)
class Declare:
    """A variable or array that lives in the enclosing block only."""

    name: str
    dtype: str
    shape: tuple[Value, ...]
    location: Location


@dataclass(frozen=True, slots=True)
class For:
    """``for variable in first, first + step, ... while (step > 0 ? <= last : >= last)``.

    ``last`` is inclusive. ``step`` is a non-zero integer constant. ``variable`` may shadow.
    """

    variable: str
    first: Value
    last: Value
    step: int
    body: tuple[Stmt, ...]
    location: Location


@dataclass(frozen=True, slots=True)
class If:
    condition: Value
    then: tuple[Stmt, ...]
    otherwise: tuple[Stmt, ...]
    location: Location


@dataclass(frozen=True, slots=True)
class Block:
    body: tuple[Stmt, ...]


Stmt = Assign | Declare | For | If | Block


@dataclass(frozen=True, slots=True)
class Variable:
    """Something declared outside the region.

    ``kind``: 'size' is an integer that the region only reads and that may appear in bounds and
    subscripts; 'scalar' is read only, passed by value; 'variable' is a rank-0 place that the region
    writes; 'array' has ``shape`` in terms of sizes (values that ``build`` must find affine).
    """

    name: str
    kind: Literal["size", "scalar", "variable", "array"]
    dtype: str
    shape: tuple[Value, ...] = ()
    live_out: bool = True


@dataclass(frozen=True, slots=True)
class Region:
    """A function or a ``#pragma scop`` region, ready for ``build``.

    ``assumptions`` are conditions on sizes that hold on entry (checked by the caller).
    """

    name: str
    variables: tuple[Variable, ...]
    body: tuple[Stmt, ...]
    location: Location
    assumptions: tuple[Value, ...] = field(default=())
