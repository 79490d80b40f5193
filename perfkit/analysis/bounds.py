"""For which sizes a program would access an array outside its bounds.

Legality never assumes that accesses are in bounds; instead the conditions found here are checked
before a kernel runs. They are plain data over the parameters, and cheap to evaluate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import islpy as isl

from perfkit.errors import Location
from perfkit.ir.affine import Affine, Constraint, Domain
from perfkit.ir.expr import Access, Expr, Load, Select, children
from perfkit.ir.isl import Polyhedra, budget_errors, domain_of
from perfkit.ir.scop import Scop, Statement


@dataclass(frozen=True, slots=True)
class Violation:
    """Some instance of ``statement`` leaves ``array`` in ``dimension`` when ``condition`` holds.

    ``certain`` is False where the access stands under a condition on data: the source may not
    make it, but a kernel would.
    """

    array: str
    dimension: int
    statement: str
    location: Location
    condition: Domain
    access: str
    certain: bool = True

    def happens(self, sizes: Mapping[str, int]) -> bool:
        return self.condition.contains(sizes)

    @property
    def message(self) -> str:
        may = "is" if self.certain else "may be"
        return (
            f"{self.location}: {self.access} {may} out of bounds in dimension {self.dimension} "
            f"when {self.condition}"
        )


@dataclass(frozen=True, slots=True)
class BoundsCheck:
    """The preconditions of a SCoP: its context, and that no violation occurs."""

    context: Domain
    violations: tuple[Violation, ...]

    def first(self, sizes: Mapping[str, int]) -> Violation | None:
        """The first violation that these sizes cause."""
        for violation in self.violations:
            if violation.happens(sizes):
                return violation
        return None

    def problem(self, sizes: Mapping[str, int]) -> str | None:
        """A message when the sizes must not be used, else None."""
        if not self.context.contains(sizes):
            given = ", ".join(f"{name} = {sizes[name]}" for name in sorted(self.context.names()))
            return f"the program needs {self.context}, but {given}"
        found = self.first(sizes)
        if found is None:
            return None
        names = sorted(found.condition.names())
        given = f" (here {', '.join(f'{n} = {sizes[n]}' for n in names)})" if names else ""
        return found.message + given


def bounds_check(scop: Scop) -> BoundsCheck:
    """What to test before each call of a kernel of this SCoP."""
    return BoundsCheck(scop.context, bounds_violations(scop))


def bounds_violations(scop: Scop) -> tuple[Violation, ...]:
    """One violation per array dimension and distinct condition that the context allows."""
    finder = _Finder(scop)
    with budget_errors():
        for statement in scop.statements:
            finder.statement(statement)
    return tuple(finder.found)


class _Finder:
    def __init__(self, scop: Scop) -> None:
        self.scop = scop
        self.polyhedra = Polyhedra(scop)
        self.found: list[Violation] = []
        self.covered: dict[tuple[str, int, bool], isl.Set] = {}
        self.done: set[tuple[Domain, Access, bool]] = set()

    def statement(self, s: Statement) -> None:
        conditional = isinstance(s.value, Select) and any(
            isinstance(e, Load) and e.access == s.write for e in (s.value.if_true, s.value.if_false)
        )
        self.access(s, s.write, not conditional)
        for access, certain in _loads(s.value, True):
            self.access(s, access, certain)

    def access(self, s: Statement, access: Access, certain: bool) -> None:
        if not access.indices or (s.domain, access, certain) in self.done:
            return
        self.done.add((s.domain, access, certain))
        extents = self.scop.array(access.array).shape
        for k, (index, extent) in enumerate(zip(access.indices, extents, strict=True)):
            self.dimension(s, access, certain, k, index, extent)

    def dimension(
        self, s: Statement, access: Access, certain: bool, k: int, index: Affine, extent: Affine
    ) -> None:
        p = self.polyhedra
        p.renew_budget()
        outside = Domain(s.iterators, ((Constraint(-index - 1),), (Constraint(index - extent),)))
        sizes = p.domain_set(s.name, outside).intersect(p.domains[s.name])
        if sizes.is_empty():
            return
        sizes = sizes.params().coalesce()
        key = (access.array, k, certain)
        known = self.covered.get(key)
        if known is not None and sizes.is_subset(known):
            return
        self.covered[key] = sizes if known is None else known.union(sizes).coalesce()
        condition = domain_of(sizes.gist(p.context).coalesce(), ())
        self.found.append(
            Violation(access.array, k, s.name, s.location, condition, str(access), certain)
        )


def _loads(e: Expr, certain: bool) -> list[tuple[Access, bool]]:
    """Every load, and whether the source makes it whenever the statement runs."""
    if isinstance(e, Load):
        return [(e.access, certain)]
    if isinstance(e, Select):
        return [
            *_loads(e.condition, certain),
            *_loads(e.if_true, False),
            *_loads(e.if_false, False),
        ]
    return [found for child in children(e) for found in _loads(child, certain)]
