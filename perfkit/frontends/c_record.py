"""What reading a region's statements leaves behind, beside the statements."""

from __future__ import annotations

from dataclasses import dataclass, field

from perfkit.errors import Location
from perfkit.frontends.c_types import Symbol
from perfkit.frontends.syntax import Element, Value


@dataclass(frozen=True, slots=True)
class Header:
    """A loop around a place of the program."""

    variable: str
    first: Value
    last: Value
    step: int


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition around a place, and whether it holds there."""

    condition: Value
    holds: bool


Path = tuple[Header | Guard, ...]


@dataclass(frozen=True, slots=True)
class Obligation:
    """``value >= 0`` wherever the path leads, or the translation is not faithful."""

    value: Value
    path: Path
    location: Location
    construct: str
    why: str


@dataclass(frozen=True, slots=True)
class Reference:
    """One subscripted access, as it stands in the program."""

    element: Element
    path: Path
    location: Location


@dataclass(slots=True)
class Use:
    """How a region uses a name from outside."""

    symbol: Symbol
    written: bool = False
    index: bool = False


@dataclass(slots=True)
class Record:
    """What reading a region found out, beside its statements."""

    uses: dict[str, Use] = field(default_factory=dict)
    obligations: list[Obligation] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
