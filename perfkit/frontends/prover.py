"""Questions about integer sets that a frontend asks while it lowers a program."""

from __future__ import annotations

from collections.abc import Sequence

import islpy as isl

from perfkit.frontends.affine import Cases, Pieces, Term, flatten
from perfkit.ir.affine import Affine, Constraint, Domain
from perfkit.ir.isl import DEFAULT_MAX_OPERATIONS, budget_errors, domain_text


class Prover:
    """isl sets over the parameters of one region, in a context of their own."""

    def __init__(self, parameters: Sequence[str]) -> None:
        self._ctx = isl.Context()
        self._ctx.set_max_operations(DEFAULT_MAX_OPERATIONS)
        self._parameters = tuple(parameters)
        self.context = Domain(()).where(*(Constraint(Affine.variable(p)) for p in self._parameters))
        self._known: dict[Domain, bool] = {}

    def assume(self, pieces: Pieces) -> None:
        """Narrow the context: the condition holds whenever the region runs."""
        self.context = self.context.intersect(pieces)
        self._known.clear()

    def set(self, domain: Domain) -> isl.Set:
        """The points of a domain within the context."""
        self._ctx.reset_operations()
        return isl.Set.read_from_str(
            self._ctx,
            f"[{', '.join(self._parameters)}] -> {{ [{', '.join(domain.iterators)}] : "
            f"({domain_text(domain)}) and ({domain_text(self.context)}) }}",
        )

    def feasible(self, domain: Domain) -> bool:
        """Whether the domain has a point for some sizes."""
        if not domain.pieces:
            return False
        if domain not in self._known:
            with budget_errors():
                self._known[domain] = not self.set(domain).is_empty()
        return self._known[domain]

    def trim(self, domain: Domain) -> Domain:
        """The domain without its empty pieces."""
        return Domain(
            domain.iterators,
            tuple(p for p in domain.pieces if self.feasible(Domain(domain.iterators, (p,)))),
        )

    def cases(self, term: Term, domain: Domain) -> tuple[tuple[Pieces, Affine], ...]:
        """The plain expressions that a term can stand for in a domain, and where each does."""
        if isinstance(term, Affine):
            return ((((),), term),)
        found: dict[Affine, list[tuple[Constraint, ...]]] = {}
        for piece, affine in flatten(term, frozenset(domain.iterators)):
            if self.feasible(domain.where(*piece)):
                found.setdefault(affine, []).append(piece)
        return tuple((tuple(pieces), affine) for affine, pieces in found.items())

    def prune(self, term: Term, domain: Domain) -> Term:
        """Without the cases that cannot occur in the domain; minima and maxima stay."""
        if not isinstance(term, Cases):
            return term
        alive = [(p, t) for p, t in term.cases if self.feasible(domain.where(*p))]
        return alive[0][1] if len({t for _, t in alive}) == 1 else Cases(tuple(alive))

    def out_of_bounds(self, domain: Domain, index: Affine, extent: Affine) -> tuple[bool, bool]:
        """Whether ``index`` can leave ``[0, extent)``, and whether it always does.

        "Always" means: for every choice of sizes of at least 16, some instance does.
        """
        outside = domain.intersect([(Constraint(-index - 1),), (Constraint(index - extent),)])
        if not self.feasible(outside):
            return False, False
        large = Domain(()).where(*(Constraint(Affine.variable(p) - 16) for p in self._parameters))
        with budget_errors():
            rest = self.set(large).params().subtract(self.set(outside).params())
            return True, rest.is_empty()
