"""The static control part (SCoP): arrays, statements, their domains and accesses, their order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from perfkit.errors import Location
from perfkit.ir.affine import Affine, Domain
from perfkit.ir.expr import Access, Expr, loads
from perfkit.ir.tree import Node


@dataclass(frozen=True, slots=True)
class Array:
    """An array or a scalar variable (rank 0).

    ``shape`` is affine in the parameters. ``local`` variables belong to the region and are
    allocated by the generated code; their values do not survive it. ``live_out`` is False for
    arguments whose final content nobody reads. ``written`` is derived, see :meth:`Scop.written`.
    """

    name: str
    dtype: str
    shape: tuple[Affine, ...] = ()
    local: bool = False
    live_out: bool = True

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass(frozen=True, slots=True)
class ScalarArgument:
    """A scalar that the region only reads, passed by value."""

    name: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Statement:
    """``write = value`` for every point of ``domain``.

    The reads are the loads of ``value``; an update such as ``C[i, j] += x`` is written out as a
    load of ``C[i, j]``. ``text`` is the source line, for comments and messages only. ``origin``
    names the statement of the original program whose instances these are, when the name differs
    (index-set splitting); a statement that storage transforms add to move a value has none.
    """

    name: str
    domain: Domain
    write: Access
    value: Expr
    location: Location = field(default=Location(), compare=False)
    text: str = field(default="", compare=False)
    origin: str = ""

    @property
    def iterators(self) -> tuple[str, ...]:
        return self.domain.iterators

    @property
    def reads(self) -> tuple[Access, ...]:
        return loads(self.value)


@dataclass(frozen=True, slots=True)
class Scop:
    """A region of affine loops. ``tree`` is the original order of its statements.

    ``parameters`` are the symbolic sizes (int64); ``context`` constrains them. Iterator names are
    local to a statement; loop names are those of ``tree``.
    """

    name: str
    parameters: tuple[str, ...]
    context: Domain
    arrays: tuple[Array, ...]
    scalars: tuple[ScalarArgument, ...]
    statements: tuple[Statement, ...]
    tree: Node

    def array(self, name: str) -> Array:
        for array in self.arrays:
            if array.name == name:
                return array
        raise KeyError(name)

    def statement(self, name: str) -> Statement:
        for statement in self.statements:
            if statement.name == name:
                return statement
        raise KeyError(name)

    def by_name(self) -> Mapping[str, Statement]:
        return {s.name: s for s in self.statements}

    @property
    def written(self) -> frozenset[str]:
        """Names of the arrays that some statement writes."""
        return frozenset(s.write.array for s in self.statements)

    @property
    def read(self) -> frozenset[str]:
        return frozenset(a.array for s in self.statements for a in s.reads)

    def with_statements(self, statements: tuple[Statement, ...], tree: Node) -> Scop:
        return replace(self, statements=statements, tree=tree)
