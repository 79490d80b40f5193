"""What a C program promises, and what must be tested before its region runs.

An obligation is a value that has to be non-negative wherever its place is reached. isl decides it
from the loops and conditions around the place: it holds for all sizes, or for some (then those are
assumed, and tested at run time), or for none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import islpy as isl

from perfkit.errors import Location, UnsupportedError
from perfkit.frontends.affine import NotAffine, Pieces, flatten
from perfkit.frontends.c_record import Header, Obligation, Path
from perfkit.frontends.c_types import largest
from perfkit.frontends.prover import Prover
from perfkit.frontends.syntax import Name, Number, Operation, Value
from perfkit.frontends.values import At, Binding, Iterator, Lowering, Outcome, Size, Split
from perfkit.ir.affine import Affine, Constraint, Domain, Piece
from perfkit.ir.isl import affine_of, budget_errors, domain_of

LARGE = 16
"""Sizes from here up are worth a version of the program; isl needs some number."""


class Surveyor:
    """Answers questions about places in one region; ``sizes`` maps each size to its dtype."""

    def __init__(self, sizes: Mapping[str, str]) -> None:
        self.prover = Prover(tuple(sizes))
        self.lowering = Lowering(self.prover, {}, False)
        self.sizes = sizes
        self.assumed: list[Value] = []
        self._places: dict[Path, At] = {}
        narrow = [n for n, d in sizes.items() if largest(d) <= largest("uint32")]
        if narrow:
            limits = (Constraint(-Affine.variable(n) + largest(sizes[n])) for n in narrow)
            self.prover.assume((tuple(limits),))

    # -- places ------------------------------------------------------------------------------

    def at(self, path: Path) -> At:
        """The instances that reach a place; what is not affine around it is left out."""
        if path not in self._places:
            self._places[path] = self._extend(path)
        return self._places[path]

    def _extend(self, path: Path) -> At:
        if not path:
            sizes: dict[str, Binding] = {n: Size(n) for n in self.sizes}
            return At(Domain(()), sizes, {}, Location())
        outer, entry = self.at(path[:-1]), path[-1]
        if not isinstance(entry, Header):
            pieces = self._possible(entry.condition, entry.holds, outer)
            return outer.within(outer.domain.intersect(pieces))
        name = f"{entry.variable}_{len(outer.domain.iterators)}_"
        variable = Affine.variable(name)
        domain = Domain((*outer.domain.iterators, name), outer.domain.pieces)
        ends = ((entry.first, 1), (entry.last, -1))
        for end, side in ends:
            sign = side if entry.step > 0 else -side
            try:
                cases = flatten(self.lowering.term(end, outer))
            except (NotAffine, UnsupportedError, Split):
                continue
            bounded = tuple((*p, Constraint((variable - x) * sign)) for p, x in cases)
            domain = domain.intersect(bounded)
        bindings = {**outer.bindings, entry.variable: Iterator(variable)}
        return At(domain, bindings, {}, Location())

    def _possible(self, condition: Value, holds: bool, at: At) -> Pieces:
        try:
            outcomes: tuple[Outcome, ...] = self.lowering.condition(condition, at)
        except (NotAffine, UnsupportedError, Split):
            return ((),)
        return tuple(p for o in outcomes if o.residual is not (not holds) for p in o.pieces)

    # -- questions ---------------------------------------------------------------------------

    def cases(self, value: Value, path: Path) -> tuple[tuple[Piece, Affine], ...] | None:
        """The value at a place as disjoint affine cases, None when it is not affine."""
        try:
            return flatten(self.lowering.term(value, self.at(path)))
        except (NotAffine, UnsupportedError, Split):
            return None

    def violations(self, value: Value, path: Path) -> isl.Set | None:
        """The sizes for which ``value < 0`` at some instance; None when it is not affine."""
        cases = self.cases(value, path)
        if cases is None:
            return None
        domain = self.at(path).domain
        below = domain.intersect(tuple((*p, Constraint(-x - 1)) for p, x in cases))
        with budget_errors():
            return self.prover.set(below).params().coalesce()

    def always(self, value: Value, path: Path) -> bool:
        found = self.violations(value, path)
        return found is not None and bool(found.is_empty())

    def require(self, value: Value, path: Path) -> str:
        """Assume what makes ``value >= 0``: 'proved', 'assumed', 'impossible' or 'unknown'."""
        found = self.violations(value, path)
        if found is None:
            return "unknown"
        if found.is_empty():
            return "proved"
        return "assumed" if self._assume_not(found) else "impossible"

    def require_all(self, claims: Sequence[tuple[Value, Path]]) -> bool:
        """Assume that all the values are non-negative; nothing is assumed when that cannot be."""
        found = [v for v in (self.violations(*c) for c in claims) if v is not None]
        if not found:
            return True
        union = found[0]
        for more in found[1:]:
            union = union.union(more)
        return bool(union.is_empty()) or self._assume_not(union)

    def _assume_not(self, bad: isl.Set) -> bool:
        """Assume sizes outside of ``bad``; False when none of use are.

        Of several alternatives one that holds for large sizes is kept: a test at run time should
        be short, and the sizes it turns away run the original program.
        """
        with budget_errors():
            context = self.prover.set(Domain(())).params()
            good = [
                isl.Set.from_basic_set(piece)
                for piece in context.subtract(bad).coalesce().get_basic_sets()
            ]
            for least in (LARGE, 4, 2):
                for alternative in good:
                    if alternative.intersect(self._from(least)).is_empty():
                        continue
                    pieces = domain_of(alternative.gist(context), ()).pieces
                    self.prover.assume(pieces)
                    self._places.clear()
                    self.assumed.append(condition_of(pieces))
                    return True
        return False

    def _from(self, least: int) -> isl.Set:
        """The choices of sizes that are all at least so large."""
        large = Domain(()).where(*(Constraint(Affine.variable(n) - least) for n in self.sizes))
        return self.prover.set(large).params()

    def discharge(self, obligations: Sequence[Obligation]) -> None:
        """Prove or assume each; refuse the region where one can never hold."""
        for o in obligations:
            if self.require(o.value, o.path) == "impossible":
                raise UnsupportedError(o.location, o.construct, o.why)

    def extent(self, values: Sequence[tuple[Value, Path]]) -> Affine | None:
        """An affine upper bound (exclusive) of values at their places, for every size."""
        reached: isl.Set | None = None
        for value, path in values:
            cases = self.cases(value, path)
            if cases is None:
                return None
            domain = self.at(path).domain
            iterators = (*domain.iterators, "value_")
            here = Affine.variable("value_")
            pieces = tuple((*p, Constraint(here - x, "eq")) for p, x in cases)
            with budget_errors():
                found = self.prover.set(Domain(iterators, domain.pieces).intersect(pieces))
                count = len(domain.iterators)
                found = found.project_out(isl.dim_type.set, 0, count).coalesce()
                reached = found if reached is None else reached.union(found)
        if reached is None:
            return None
        if reached.is_empty():
            return Affine.constant(1)
        with budget_errors():
            try:
                candidates = self._maxima(reached)
            except isl.Error:
                return None  # unbounded
            bounds = [c + 1 for c in candidates]
            for bound in bounds:
                if self._beyond(reached, bound).is_empty():
                    return bound
            for bound in bounds:
                beyond = self._beyond(reached, bound)
                if beyond.intersect(self._from(LARGE)).is_empty() and self._assume_not(beyond):
                    return bound
            total = Affine()
            for bound in bounds:
                total = total + bound
            return total if self._beyond(reached, total).is_empty() else None

    def _maxima(self, reached: isl.Set) -> tuple[Affine, ...]:
        found: list[Affine] = []
        if not reached.dim_has_upper_bound(isl.dim_type.set, 0):
            return ()
        for _, aff in reached.dim_max(0).get_pieces():
            affine = affine_of(aff, ())
            if affine not in found:
                found.append(affine)
        return tuple(found)

    def _beyond(self, reached: isl.Set, bound: Affine) -> isl.Set:
        """The sizes for which some value reaches the bound."""
        beyond = self.prover.set(
            Domain(("value_",)).where(Constraint(Affine.variable("value_") - bound))
        )
        return reached.intersect(beyond).params()


# -- affine data as values -------------------------------------------------------------------


def value_of(affine: Affine) -> Value:
    """An affine expression over sizes as a 64-bit value."""
    parts: list[Value] = []
    for name, c in affine.terms:
        parts.append(_times(Name("int64", name), c))
    for div, c in affine.divs:
        divisor = Number("int64", div.divisor)
        floor = Operation("int64", "floordiv", (value_of(div.inner), divisor))
        parts.append(_times(floor, c))
    if affine.const or not parts:
        parts.append(Number("int64", affine.const))
    total = parts[0]
    for part in parts[1:]:
        total = Operation("int64", "add", (total, part))
    return total


def _times(value: Value, c: int) -> Value:
    return value if c == 1 else Operation("int64", "mul", (Number("int64", c), value))


def condition_of(pieces: Pieces) -> Value:
    """A union of conjunctions as a truth value."""
    alternatives: list[Value] = []
    for piece in pieces:
        conjuncts: list[Value] = [
            Operation(
                "bool", "ge" if c.kind == "ge" else "eq", (value_of(c.expr), Number("int64", 0))
            )
            for c in piece
        ]
        alternatives.append(_joined("land", conjuncts, True))
    return _joined("lor", alternatives, False)


def _joined(op: str, values: Sequence[Value], empty: bool) -> Value:
    if not values:
        return Number("bool", empty)
    result = values[0]
    for value in values[1:]:
        result = Operation("bool", op, (result, value))
    return result
