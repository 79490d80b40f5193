"""Lowering of values: affine terms, conditions and typed expressions.

A value is lowered *at* a place: the domain there, what each name means there, and whether it is
evaluated where the source would not (``guarded``). When one value needs different plain forms in
different parts of the domain, :class:`Split` asks the caller to divide the domain and try again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from perfkit.errors import Location, UnsupportedError
from perfkit.frontends import affine as terms
from perfkit.frontends.affine import EVERYTHING, NotAffine, Pieces, Term
from perfkit.frontends.prover import Prover
from perfkit.frontends.syntax import Element, Name, Number, Operation, Value
from perfkit.ir import expr as ir
from perfkit.ir.affine import Affine, Domain
from perfkit.ir.scop import Array

COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
BINARY = (
    "add", "sub", "mul", "div", "tdiv", "tmod", "floordiv", "mod", "min", "max",
    "and", "or", "xor", "shl", "shr", "land", "lor",
)  # fmt: skip
INTEGER_DIVISIONS = ("tdiv", "tmod", "floordiv", "mod")


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


class Lowering:
    """Turns values of one region into IR; knows its arrays and its prover."""

    def __init__(self, prover: Prover, arrays: Mapping[str, Array], checked_calls: bool) -> None:
        self.prover = prover
        self.arrays = arrays
        self.checked_calls = checked_calls

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
                return [Outcome(o.pieces, _not(o.residual)) for o in self.condition(arg, at)]
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
                    both = Operation("bool", op, (_truth(a.residual), _truth(b.residual)))
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

    # -- data --------------------------------------------------------------------------------

    def access(self, target: Name | Element, at: At) -> ir.Access:
        """The element that a name or subscript denotes; checked to exist where it must be."""
        name = target.name if isinstance(target, Name) else target.array
        binding = at.bindings.get(name)
        if not isinstance(binding, Place):
            why = "is not declared" if binding is None else "is not an array or a variable"
            raise UnsupportedError(at.location, name, why)
        array = self.arrays[binding.array]
        indices = () if isinstance(target, Name) else target.indices
        if len(indices) != array.rank:
            raise UnsupportedError(
                at.location,
                name,
                f"has {array.rank} dimensions, but {len(indices)} subscripts; only single "
                "elements can be read or written here",
            )
        found = tuple(self.affine(i, at, f"subscript of {name}") for i in indices)
        if at.guarded:
            self._check_guarded(array, found, at)
        return ir.Access(array.name, found)

    def _check_guarded(self, array: Array, indices: tuple[Affine, ...], at: At) -> None:
        """A conditional access is made on every iteration, so it must be within the array."""
        for k, (index, extent) in enumerate(zip(indices, array.shape, strict=True)):
            can, always = self.prover.out_of_bounds(at.domain, index, extent)
            if always or (can and not self.checked_calls):
                raise UnsupportedError(
                    at.location,
                    f"{array.name}[{', '.join(map(str, indices))}]",
                    "stands under a condition on data, and is not known to be within the "
                    f"array (dimension {k}) where the condition does not hold",
                )

    def expression(self, value: Value, at: At) -> ir.Expr:
        """The typed expression of a value; raises Split where it depends on the domain."""
        if value.dtype not in ir.DTYPES:
            raise UnsupportedError(at.location, value.dtype, "is not a type perfkit knows")
        if _is_index_arithmetic(value):
            try:
                term = self.term(value, at)
            except NotAffine:
                pass
            else:
                if isinstance(term, Affine):
                    return _affine_value(value.dtype, term)
        match value:
            case Number(value=number):
                return ir.Const(value.dtype, number)
            case Name(name=name):
                return self._name_expression(value.dtype, name, at)
            case Element(array=array):
                access = self.access(value, at)
                return _converted(value.dtype, ir.Load(self._dtype(array, at), access))
            case Operation():
                return self._operation(value, at)
        raise UnsupportedError(at.location, type(value).__name__, "is not a value")

    def _dtype(self, name: str, at: At) -> str:
        binding = at.bindings[name]
        assert isinstance(binding, Place)
        return self.arrays[binding.array].dtype

    def _name_expression(self, dtype: str, name: str, at: At) -> ir.Expr:
        match at.bindings.get(name):
            case ScalarInput(name=scalar, dtype=own):
                return _converted(dtype, ir.Scalar(own, scalar))
            case Place():
                load = ir.Load(self._dtype(name, at), self.access(Name(dtype, name), at))
                return _converted(dtype, load)
            case Size(name=size):
                return _affine_value(dtype, Affine.variable(size))
            case Iterator():
                return _affine_value(dtype, self.affine(Name(dtype, name), at, name))
        raise UnsupportedError(at.location, name, "is not declared")

    def truth(self, value: Value, at: At) -> ir.Expr:
        return self.expression(_truth(value), at)

    def _operation(self, value: Operation, at: At) -> ir.Expr:
        op, args, dtype = value.op, value.args, value.dtype
        if op == "select":
            return self._select(value, at)
        if op in ("land", "lor"):
            later = replace(at, guarded=True)
            return ir.Binary(dtype, op, self.truth(args[0], at), self.truth(args[1], later))  # type: ignore[arg-type]
        if op == "not":
            return ir.Unary(dtype, "not", self.truth(args[0], at))
        if at.guarded and op in INTEGER_DIVISIONS and dtype in ir.INTEGERS:
            divisor = args[1]
            if not (isinstance(divisor, Number) and divisor.value != 0):
                raise UnsupportedError(
                    at.location, "integer division", "stands under a condition on data, and "
                    "its divisor may be zero where the condition does not hold",
                )  # fmt: skip
        operands = [self.expression(a, at) for a in args]
        if op == "cast":
            return _converted(dtype, operands[0])
        if op in ("neg", "invert"):
            return ir.Unary(dtype, cast(Any, op), operands[0])
        if op in COMPARISONS:
            return ir.Compare(dtype, cast(Any, op), *_same_dtype(operands, op, at))
        if op == "call":
            return self._call(value, operands, at)
        if op in BINARY:
            if len(operands) < 2:
                raise UnsupportedError(at.location, op, "needs two operands")
            result = operands[0]
            for operand in operands[1:]:
                result = ir.Binary(dtype, cast(Any, op), result, operand)
            return result
        raise UnsupportedError(at.location, op, "is not an operation perfkit knows")

    def _call(self, value: Operation, operands: list[ir.Expr], at: At) -> ir.Expr:
        arity = ir.FUNCTIONS.get(value.function)
        if arity is None:
            known = ", ".join(sorted(ir.FUNCTIONS))
            raise UnsupportedError(
                at.location, f"call of {value.function}()", f"only these can be called: {known}"
            )
        if arity != len(operands):
            raise UnsupportedError(
                at.location, f"call of {value.function}()", f"takes {arity} arguments"
            )
        return ir.Call(value.dtype, value.function, tuple(operands))

    def _select(self, value: Operation, at: At) -> ir.Expr:
        condition, if_true, if_false = value.args
        outcomes = self.feasible_outcomes(condition, at)
        if len(outcomes) != 1:
            raise Split(tuple(o.pieces for o in outcomes))
        residual = outcomes[0].residual
        if isinstance(residual, bool):
            return self.expression(if_true if residual else if_false, at)
        inside = replace(at, guarded=True)
        return ir.Select(
            value.dtype,
            self.truth(residual, at),
            self.expression(if_true, inside),
            self.expression(if_false, inside),
        )


def _is_index_arithmetic(value: Value) -> bool:
    """Whether the value may be computed without wrapping: narrow and unsigned types do wrap."""
    if isinstance(value, Name) or (isinstance(value, Operation) and value.op == "cast"):
        return value.dtype in ir.INTEGERS
    return isinstance(value, Operation) and value.dtype in ("int32", "int64")


def _not(residual: Value | bool) -> Value | bool:
    if isinstance(residual, bool):
        return not residual
    return Operation("bool", "not", (_truth(residual),))


def _truth(value: Value) -> Value:
    if value.dtype == "bool":
        return value
    return Operation(
        "bool", "ne", (value, Number(value.dtype, 0.0 if value.dtype in ir.FLOATS else 0))
    )


def _affine_value(dtype: str, affine: Affine) -> ir.Expr:
    if affine.is_constant:
        return ir.Const(dtype, affine.const)
    return _converted(dtype, ir.AffineValue("int64", affine))


def _converted(dtype: str, value: ir.Expr) -> ir.Expr:
    if value.dtype == dtype:
        return value
    # Index arithmetic does not overflow, so an int in between changes nothing.
    if (
        isinstance(value, ir.Cast)
        and value.dtype in ("int32", "int64")
        and isinstance(value.arg, ir.AffineValue)
    ):
        return _converted(dtype, value.arg)
    return ir.Cast(dtype, value)


def _same_dtype(operands: list[ir.Expr], op: str, at: At) -> tuple[ir.Expr, ir.Expr]:
    left, right = operands
    if left.dtype != right.dtype:
        raise UnsupportedError(
            at.location, op, f"compares {left.dtype} with {right.dtype}; make both one type"
        )
    return left, right


__all__ = [
    "At", "Binding", "Iterator", "Lowering", "Outcome", "Place", "ScalarInput", "Size", "Split",
]  # fmt: skip
