"""The bridge between the plain IR and isl.

:class:`Polyhedra` owns one isl context for one compilation, with a cap on the operations isl may
spend, and builds sets and maps from the IR. isl objects never leave the compilation that made
them, and no key or text is ever made from their printed form.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

import islpy as isl

from perfkit.errors import BudgetExceeded
from perfkit.ir.affine import Affine, Constraint, Domain, FloorDiv
from perfkit.ir.expr import Access
from perfkit.ir.scop import Scop, Statement
from perfkit.ir.tree import Node, padded_vectors

DEFAULT_MAX_OPERATIONS = 20_000_000
_GAVE_UP = (
    "isl gave up: the program needs more polyhedral operations than allowed "
    "(raise PERFKIT_ISL_MAX_OPERATIONS to let it try longer)"
)
_T = TypeVar("_T")


@contextmanager
def budget_errors() -> Iterator[None]:
    """Turn isl's "maximal number of operations exceeded" into :class:`BudgetExceeded`."""
    try:
        yield
    except isl.Error as error:
        if "operations" in str(error) or "quota" in str(error):
            raise BudgetExceeded(_GAVE_UP) from None
        raise


def domain_text(domain: Domain) -> str:
    """The constraints of a domain in isl's syntax."""
    return str(domain)


class Polyhedra:
    """isl objects of one SCoP, in one context.

    Every set and map has the SCoP's parameters, in order. Statement instances live in the space
    ``S[iterators]``, array elements in ``A[indices]``, schedules in an unnamed space. Objects of
    two SCoPs with the same parameters may be compared when they share ``ctx``.
    """

    def __init__(
        self,
        scop: Scop,
        max_operations: int = DEFAULT_MAX_OPERATIONS,
        ctx: isl.Context | None = None,
    ) -> None:
        self.scop = scop
        self.ctx = isl.Context() if ctx is None else ctx
        self.max_operations = max_operations
        self.ctx.set_max_operations(max_operations)
        # What others have worked out about this SCoP, under keys of their own.
        self.memo: dict[Hashable, Any] = {}
        # An empty "[] -> " would turn the text of a schedule into another expression.
        self.params = f"[{', '.join(scop.parameters)}] -> " if scop.parameters else ""

    def renew_budget(self) -> None:
        """Start counting operations anew: each independent question gets the whole budget."""
        self.ctx.reset_operations()

    # -- from text ---------------------------------------------------------------------------

    def set(self, text: str) -> isl.Set:
        return self._read(isl.Set.read_from_str, text)

    def map(self, text: str) -> isl.Map:
        return self._read(isl.Map.read_from_str, text)

    def _read(self, read: Callable[[isl.Context, str], _T], text: str) -> _T:
        try:
            return read(self.ctx, self.params + text)
        except isl.Error:
            # Out of operations, isl's parser reports a syntax error.
            self.renew_budget()
            read(self.ctx, self.params + text)
            raise BudgetExceeded(_GAVE_UP) from None

    def union_map(self, maps: Iterable[isl.Map]) -> isl.UnionMap:
        result = isl.UnionMap.read_from_str(self.ctx, self.params + "{ }")
        for m in maps:
            result = result.union(isl.UnionMap.from_map(m))
        return result

    def union_set(self, sets: Iterable[isl.Set]) -> isl.UnionSet:
        result = isl.UnionSet.read_from_str(self.ctx, self.params + "{ }")
        for s in sets:
            result = result.union(isl.UnionSet.from_set(s))
        return result

    # -- from the IR -------------------------------------------------------------------------

    @cached_property
    def context(self) -> isl.Set:
        """The parameter values that can occur."""
        return self.set(f"{{ : {domain_text(self.scop.context)} }}")

    @cached_property
    def domains(self) -> Mapping[str, isl.Set]:
        """The instances of every statement, within the context."""
        return {
            s.name: self.domain_set(s.name, s.domain).intersect_params(self.context)
            for s in self.scop.statements
        }

    def domain_set(self, name: str, domain: Domain) -> isl.Set:
        return self.set(f"{{ {name}[{', '.join(domain.iterators)}] : {domain_text(domain)} }}")

    def access_map(self, statement: Statement, access: Access) -> isl.Map:
        """``S[i] -> A[f(i)]``, restricted to the statement's domain."""
        indices = ", ".join(map(str, access.indices))
        instance = f"{statement.name}[{', '.join(statement.iterators)}]"
        return self.map(f"{{ {instance} -> {access.array}[{indices}] }}").intersect_domain(
            self.domains[statement.name]
        )

    @cached_property
    def writes(self) -> Mapping[str, isl.Map]:
        """Per statement, the element that an instance writes."""
        return {s.name: self.access_map(s, s.write) for s in self.scop.statements}

    @cached_property
    def reads(self) -> Mapping[str, tuple[isl.Map, ...]]:
        """Per statement, one map for each distinct access that it reads."""
        return {
            s.name: tuple(self.access_map(s, a) for a in dict.fromkeys(s.reads))
            for s in self.scop.statements
        }

    def schedule_maps(self, tree: Node) -> dict[str, isl.Map]:
        """``S[i] -> [schedule vector]`` for every statement of the tree, all of one length."""
        iterators = {s.name: s.iterators for s in self.scop.statements}
        return {
            name: self.map(
                f"{{ {name}[{', '.join(iterators[name])}] -> [{', '.join(map(str, vector))}] }}"
            ).intersect_domain(self.domains[name])
            for name, vector in padded_vectors(tree).items()
        }


# -- from isl back to the IR -----------------------------------------------------------------


def affine_of(aff: isl.Aff, iterators: tuple[str, ...]) -> Affine:
    """An isl affine expression with integer coefficients as plain data.

    ``iterators`` names the input dimensions. Raises ValueError for a fractional expression, which
    no integer-valued schedule or bound has.
    """
    denominator = _int(aff.get_denominator_val())
    parameters = [
        aff.get_dim_name(isl.dim_type.param, k) for k in range(aff.dim(isl.dim_type.param))
    ]

    def numerator(value: isl.Val) -> int:
        if denominator == 1:
            return _int(value)
        scaled = value.mul(isl.Val.int_from_si(aff.get_ctx(), denominator))
        return _int(scaled)

    terms: dict[str, int] = {}
    for k, name in enumerate(parameters):
        terms[name] = numerator(aff.get_coefficient_val(isl.dim_type.param, k))
    for k, name in enumerate(iterators):
        c = numerator(aff.get_coefficient_val(isl.dim_type.in_, k))
        terms[name] = terms.get(name, 0) + c
    result = Affine.build(terms, numerator(aff.get_constant_val()))
    for k in range(aff.dim(isl.dim_type.div)):
        c = numerator(aff.get_coefficient_val(isl.dim_type.div, k))
        if c:
            inner = aff.get_div(k)  # the argument of floor, already divided
            d = _int(inner.get_denominator_val())
            scaled = inner.scale_val(isl.Val.int_from_si(aff.get_ctx(), d))
            result = result + affine_of(scaled, iterators).floordiv(d) * c
    if denominator == 1:
        return result
    exact = result.floordiv(denominator)
    if exact * denominator != result:
        raise ValueError(f"not an integer expression: ({result})/{denominator}")
    return exact


def _int(value: isl.Val) -> int:
    if not value.is_int():
        raise ValueError(f"not an integer: {value}")
    return value.to_python()


def domain_of(pieces: isl.Set, iterators: tuple[str, ...]) -> Domain:
    """A set as plain data; existential dimensions are turned into explicit floors first."""
    result: list[tuple[Constraint, ...]] = []
    for basic in pieces.compute_divs().remove_redundancies().get_basic_sets():
        constraints: list[Constraint] = []
        for c in basic.get_constraints():
            if c.is_div_constraint():
                continue
            expr = _constraint_expr(c, iterators)
            constraints.append(Constraint(expr, "eq" if c.is_equality() else "ge"))
        result.append(tuple(constraints))
    return Domain(iterators, tuple(result))


def constraints_on(
    basic: isl.BasicSet, iterators: tuple[str, ...], k: int
) -> tuple[Constraint, ...]:
    """The constraints of a set without existential dimensions that involve its dimension ``k``."""
    return tuple(
        Constraint(_constraint_expr(c, iterators), "eq" if c.is_equality() else "ge")
        for c in basic.remove_redundancies().get_constraints()
        if c.involves_dims(isl.dim_type.set, k, 1)
    )


def _constraint_expr(constraint: isl.Constraint, iterators: tuple[str, ...]) -> Affine:
    aff = constraint.get_aff()
    return affine_of(aff, iterators)


__all__ = [
    "DEFAULT_MAX_OPERATIONS", "Constraint", "FloorDiv", "Polyhedra", "affine_of",
    "budget_errors", "constraints_on", "domain_of", "domain_text",
]  # fmt: skip
