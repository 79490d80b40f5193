"""Recognising what is affine: terms and conditions of the small loop language.

A value is lowered *at* a place: the domain there, what each name means there, and whether it is
evaluated where the source would not (``guarded``). When one value needs different plain forms in
different parts of the domain, :class:`Split` asks the caller to divide the domain and try again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from perfkit.errors import Location, UnsupportedError
from perfkit.frontends import affine as terms
from perfkit.frontends.affine import EVERYTHING, NotAffine, Pieces, Term
from perfkit.frontends.prover import Prover
from perfkit.frontends.syntax import Element, Name, Number, Operation, Value
from perfkit.ir import expr as ir
from perfkit.ir.affine import Affine, Domain

COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")


# -- what a name means -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Iterator:
    """A loop variable: affine in the iterators of the statement."""

    term: Term


@dataclass(frozen=True, slots=True)
class Size:
    name: str


@dataclass(frozen=True, slots=True)
class ScalarInput:
    name: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Place:
    """An array of any rank, under its name in the SCoP."""

    array: str


Binding = Iterator | Size | ScalarInput | Place


@dataclass(frozen=True, slots=True)
class At:
    """Where a value is lowered. ``known`` holds integer variables whose value is affine here."""

    domain: Domain
    bindings: Mapping[str, Binding]
    known: Mapping[str, Term]
    location: Location
    guarded: bool = False

    def within(self, domain: Domain) -> At:
        return replace(self, domain=domain)


class Split(Exception):
    """Lower again in each of these parts of the domain, one after the other."""

    def __init__(self, parts: tuple[Pieces, ...]) -> None:
        self.parts = parts
        super().__init__(f"{len(parts)} cases")


@dataclass(frozen=True, slots=True)
class Outcome:
    """In ``pieces`` a condition is ``residual``: decided, or a value to test at run time."""

    pieces: Pieces
    residual: Value | bool


class Recognizer:
    """Finds the affine parts of values and conditions."""

    def __init__(self, prover: Prover) -> None:
        self.prover = prover

    # -- affine terms ------------------------------------------------------------------------

    def term(self, value: Value, at: At) -> Term:
        """The value as a piecewise quasi-affine term; raises NotAffine."""
        match value:
            case Number(value=number) if isinstance(number, int) and value.dtype not in ir.FLOATS:
                return Affine.constant(int(number))
            case Name(name=name):
                return self._name_term(name, at)
            case Element():
                raise NotAffine(f"it depends on data ({value.array}[...])")
            case Operation() if value.dtype not in ir.FLOATS:
                return self.prover.prune(self._operation_term(value, at), at.domain)
        raise NotAffine("it is not an integer")

    def _name_term(self, name: str, at: At) -> Term:
        match at.bindings.get(name):
            case Iterator(term=term):
                return term
            case Size(name=size):
                return Affine.variable(size)
            case Place(array=array) if array in at.known:
                return at.known[array]
            case Place():
                raise NotAffine(f"{name!r} is a variable whose value is not affine here")
            case ScalarInput():
                raise NotAffine(f"{name!r} is a scalar value, not a size")
        raise NotAffine(f"{name!r} is not declared")

    def _operation_term(self, value: Operation, at: At) -> Term:
        op, args = value.op, value.args
        if op in COMPARISONS or op in ("land", "lor", "not"):
            return terms.choose(self._decided(value, at), Affine.constant(1), Affine.constant(0))
        if op == "select":
            return self._choice(args[0], args[1], args[2], at)
        if op == "call" and value.function in ("abs", "fabs"):
            return terms.absolute(self.term(args[0], at))
        if op == "cast" and value.dtype == "bool":
            return terms.choose(self._decided(value, at), Affine.constant(1), Affine.constant(0))
        operands = [self.term(a, at) for a in args]
        match op, operands:
            case "cast", [a]:
                return a
            case "neg", [a]:
                return terms.scale(a, -1)
            case "invert", [a]:
                return terms.subtract(Affine.constant(-1), a)
            case "add", [a, b]:
                return terms.add(a, b)
            case "sub", [a, b]:
                return terms.subtract(a, b)
            case "mul", [a, b]:
                return terms.multiply(a, b)
            case (("min" | "max"), _):
                return terms.Extreme("min" if op == "min" else "max", tuple(operands))
            case "floordiv", [a, b]:
                return terms.floordiv(a, self._constant(b, "divisor"))
            case "mod", [a, b]:
                return terms.mod(a, self._constant(b, "divisor"))
            case "tdiv", [a, b]:
                return terms.tdiv(a, self._constant(b, "divisor"))
            case "tmod", [a, b]:
                return terms.tmod(a, self._constant(b, "divisor"))
            case "shl", [a, b]:
                return terms.scale(a, 1 << self._shift(b))
            case "shr", [a, b]:
                return terms.floordiv(a, 1 << self._shift(b))
            case "and", [a, b]:
                mask = self._constant(b, "mask")
                if mask >= 0 and mask & (mask + 1) == 0:  # low bits: a remainder
                    return terms.mod(a, mask + 1)
        raise NotAffine(f"the operation {value.function or op!r} is not affine")

    def _choice(self, condition: Value, if_true: Value, if_false: Value, at: At) -> Term:
        otherwise = self.term(if_false, at)
        holds = self._decided(condition, at)
        # One side that cannot occur leaves a minimum or maximum in the other intact.
        if not self.prover.feasible(at.domain.intersect(holds)):
            return otherwise
        chosen = self.term(if_true, at)
        if not self.prover.feasible(at.domain.intersect(terms.negation(holds))):
            return chosen
        return terms.choose(holds, chosen, otherwise)

    def _constant(self, term: Term, what: str) -> int:
        if isinstance(term, Affine) and term.is_constant:
            return term.const
        raise NotAffine(f"the {what} is not a constant")

    def _shift(self, term: Term) -> int:
        count = self._constant(term, "shift count")
        if not 0 <= count < 63:
            raise NotAffine(f"it shifts by {count}")
        return count

    def _decided(self, condition: Value, at: At) -> Pieces:
        """A condition that must be affine, as a union of disjoint conjunctions."""
        result: Pieces = ()
        for outcome in self.condition(condition, at):
            if outcome.residual is True:
                result += outcome.pieces
            elif outcome.residual is not False:
                raise NotAffine("a condition in it depends on data")
        return result

    def affine(self, value: Value, at: At, what: str) -> Affine:
        """A plain affine expression; splits the domain, or raises UnsupportedError."""
        try:
            term = self.term(value, at)
            cases = self.prover.cases(term, at.domain)
        except NotAffine as error:
            raise UnsupportedError(at.location, what, f"is not affine: {error}") from None
        if len(cases) != 1:
            raise Split(tuple(pieces for pieces, _ in cases))
        return cases[0][1]

    # -- conditions --------------------------------------------------------------------------

    def condition(self, value: Value, at: At) -> tuple[Outcome, ...]:
        """The affine parts of a condition decided, by disjoint cases; data parts left over."""
        merged: dict[Value | bool, Pieces] = {}
        for outcome in self._condition(value, at):
            if outcome.pieces:
                merged[outcome.residual] = merged.get(outcome.residual, ()) + outcome.pieces
        return tuple(Outcome(pieces, residual) for residual, pieces in merged.items())

    def _condition(self, value: Value, at: At) -> list[Outcome]:
        match value:
            case Operation(op="not", args=(arg,)):
                return [Outcome(o.pieces, negated(o.residual)) for o in self.condition(arg, at)]
            case Operation(op="land", args=(left, right)):
                return self._connect(left, right, at, stops_at=False)
            case Operation(op="lor", args=(left, right)):
                return self._connect(left, right, at, stops_at=True)
            case Operation(op="cast", args=(arg,)) if arg.dtype == "bool":
                return list(self.condition(arg, at))
        try:
            if isinstance(value, Operation) and value.op in COMPARISONS:
                if all(a.dtype == "bool" for a in value.args) and value.op in ("eq", "ne"):
                    raise NotAffine("it compares truth values")
                holds = terms.compare(value.op, *(self.term(a, at) for a in value.args))
            elif isinstance(value, Operation) and value.op == "cast" and value.dtype == "bool":
                holds = terms.compare("ne", self.term(value.args[0], at), Affine())
            else:
                holds = terms.compare("ne", self.term(value, at), Affine())
            return [Outcome(holds, True), Outcome(terms.negation(holds), False)]
        except NotAffine:
            return [Outcome(EVERYTHING, value)]

    def _connect(self, left: Value, right: Value, at: At, stops_at: bool) -> list[Outcome]:
        op = "lor" if stops_at else "land"
        result: list[Outcome] = []
        for a in self.condition(left, at):
            if a.residual is stops_at:
                result.append(a)
                continue
            for b in self.condition(right, at):
                pieces = terms.conjunction(a.pieces, b.pieces)
                if isinstance(a.residual, bool):
                    result.append(Outcome(pieces, b.residual))
                elif isinstance(b.residual, bool):
                    rest = b.residual if b.residual is stops_at else a.residual
                    result.append(Outcome(pieces, rest))
                else:
                    both = Operation("bool", op, (truth_of(a.residual), truth_of(b.residual)))
                    result.append(Outcome(pieces, both))
        return result

    def feasible_outcomes(self, value: Value, at: At) -> tuple[Outcome, ...]:
        """The outcomes that can occur in the domain; a sole one holds everywhere in it."""
        outcomes = [
            o
            for o in self.condition(value, at)
            if self.prover.feasible(at.domain.intersect(o.pieces))
        ]
        if len(outcomes) == 1:
            return (Outcome(EVERYTHING, outcomes[0].residual),)
        return tuple(outcomes)


def negated(residual: Value | bool) -> Value | bool:
    if isinstance(residual, bool):
        return not residual
    return Operation("bool", "not", (truth_of(residual),))


def truth_of(value: Value) -> Value:
    if value.dtype == "bool":
        return value
    return Operation(
        "bool", "ne", (value, Number(value.dtype, 0.0 if value.dtype in ir.FLOATS else 0))
    )
