"""Lowering of values to typed expressions, and of names and subscripts to accesses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from perfkit.errors import UnsupportedError
from perfkit.frontends.affine import NotAffine
from perfkit.frontends.prover import Prover
from perfkit.frontends.recognize import (
    COMPARISONS,
    At,
    Binding,
    Iterator,
    Outcome,
    Place,
    Recognizer,
    ScalarInput,
    Size,
    Split,
    truth_of,
)
from perfkit.frontends.syntax import Element, Name, Number, Operation, Value
from perfkit.ir import expr as ir
from perfkit.ir.affine import Affine
from perfkit.ir.scop import Array

BINARY = (
    "add", "sub", "mul", "div", "tdiv", "tmod", "floordiv", "mod", "min", "max",
    "and", "or", "xor", "shl", "shr", "land", "lor",
)  # fmt: skip
INTEGER_DIVISIONS = ("tdiv", "tmod", "floordiv", "mod")


class Lowering(Recognizer):
    """Turns values of one region into IR; knows its arrays and its prover."""

    def __init__(self, prover: Prover, arrays: Mapping[str, Array], checked_calls: bool) -> None:
        super().__init__(prover)
        self.arrays = arrays
        self.checked_calls = checked_calls

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
        return self.expression(truth_of(value), at)

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
    "At",
    "Binding",
    "Iterator",
    "Lowering",
    "Outcome",
    "Place",
    "ScalarInput",
    "Size",
    "Split",
]
