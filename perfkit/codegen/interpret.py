"""The oracle: runs a SCoP's instances one by one, in NumPy scalars of exactly the IR's types."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from perfkit.codegen.points import Point, compile_affine, points
from perfkit.errors import BoundsError, DtypeError, InternalError, SizeError
from perfkit.ir import expr as ir
from perfkit.ir.scop import Array, Scop, Statement
from perfkit.ir.tree import Node, padded_vectors
from perfkit.runtime.signature import Signature

Evaluate = Callable[[Point], Any]
Arrays = Mapping[str, "np.ndarray[Any, Any]"]


def run(
    scop: Scop,
    sizes: Mapping[str, int],
    arrays: Arrays,
    scalars: Mapping[str, int | float],
    tree: Node | None = None,
) -> None:
    """Execute ``scop`` in place on ``arrays`` (rank-0 arrays for variables).

    The order is that of ``tree``, or the original one. Raises BoundsError for an access outside an
    array, DtypeError and SizeError for arrays that do not fit the SCoP, and InternalError for a
    tree that does not order the instances of a statement.
    """
    memory = dict(_checked(scop, sizes, arrays))
    for array in scop.arrays:
        if array.local:
            # Where nothing runs, the extent of a local array may come out negative.
            shape = tuple(max(0, n) for n in _shape(array, sizes))
            memory[array.name] = _poisoned(array, shape)
    values = {s.name: _types(s.dtype)(scalars[s.name]) for s in scop.scalars}
    schedule = padded_vectors(scop.tree if tree is None else tree)
    work: list[tuple[Point, str, Point]] = []
    actions: dict[str, Callable[[Point], None]] = {}
    for s in scop.statements:
        actions[s.name] = _Compiler(s, memory, values, sizes).action()
        vector = [compile_affine(e, s.iterators, sizes) for e in schedule[s.name]]
        work += [
            (tuple(f(point) for f in vector), s.name, point) for point in points(s.domain, sizes)
        ]
    work.sort(key=lambda item: item[0])
    for (time, name, _), (next_time, next_name, _) in pairwise(work):
        if time == next_time and name == next_name:
            raise InternalError(f"two instances of {name} run at the same time {time}")
    with np.errstate(all="ignore"):
        for _, name, point in work:
            actions[name](point)


def call(
    scop: Scop, signature: Signature, arguments: Mapping[str, Any], tree: Node | None = None
) -> tuple[Any, ...]:
    """Run with a kernel's arguments by name; arrays change in place, results are returned."""
    sizes: dict[str, int] = {}
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    scalars: dict[str, Any] = {}
    results: list[np.ndarray[Any, Any]] = []
    for p in signature.parameters:
        if p.kind == "result":
            arrays[p.name] = np.zeros((), p.dtype)
            results.append(arrays[p.name])
        elif p.kind == "size":
            sizes[p.name] = int(arguments[p.name])
        elif p.kind == "scalar":
            scalars[p.name] = arguments[p.name]
        else:
            arrays[p.name] = np.asarray(arguments[p.name])
            for symbol, extent in zip(p.shape, arrays[p.name].shape, strict=True):
                if isinstance(symbol, str):
                    sizes[symbol] = extent
    run(scop, sizes, arrays, scalars, tree)
    return tuple(r[()] for r in results)


def _shape(array: Array, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(extent.evaluate(sizes) for extent in array.shape)


def _checked(scop: Scop, sizes: Mapping[str, int], arrays: Arrays) -> Arrays:
    if not scop.context.contains(sizes):
        raise SizeError(f"the sizes {dict(sizes)} contradict {scop.context}")
    given = {a.name: arrays[a.name] for a in scop.arrays if not a.local}
    for array in scop.arrays:
        if array.local:
            continue
        value = given[array.name]
        if value.dtype != np.dtype(array.dtype):
            raise DtypeError(f"{array.name} is {value.dtype}, the SCoP has {array.dtype}")
        if value.shape != _shape(array, sizes):
            raise SizeError(
                f"{array.name} has shape {value.shape}, the SCoP {_shape(array, sizes)}"
            )
    return given


def _poisoned(array: Array, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """A local whose every element is conspicuous until it is written."""
    if array.dtype in ir.FLOATS:
        return np.full(shape, np.nan, array.dtype)
    data = np.empty(shape, array.dtype)
    data.view(np.uint8).fill(1) if array.dtype == "bool" else data.fill(_marker(array.dtype))
    return data


def _marker(dtype: str) -> int:
    return int(np.iinfo(dtype).max) // 3 * 2 + 1


def _types(dtype: str) -> Any:
    return np.dtype(dtype).type


def _wrapped(value: int, dtype: str) -> Any:
    """An integer in two's complement, as C and NumPy arrays keep it."""
    bits = ir.ITEMSIZE[dtype] * 8
    value &= (1 << bits) - 1
    if not dtype.startswith("u") and value >> (bits - 1):
        value -= 1 << bits
    return _types(dtype)(value)


class _Compiler:
    """One statement as a Python closure over its point."""

    def __init__(
        self,
        statement: Statement,
        memory: Arrays,
        scalars: Mapping[str, Any],
        sizes: Mapping[str, int],
    ) -> None:
        self.statement = statement
        self.memory = memory
        self.scalars = scalars
        self.sizes = sizes

    def action(self) -> Callable[[Point], None]:
        target = self.memory[self.statement.write.array]
        index = self.index(self.statement.write)
        value = self.value(self.statement.value)

        def store(point: Point) -> None:
            target[index(point)] = value(point)

        return store

    def index(self, access: ir.Access) -> Callable[[Point], Point]:
        functions = [
            compile_affine(i, self.statement.iterators, self.sizes) for i in access.indices
        ]
        shape = self.memory[access.array].shape
        where = f"{self.statement.location}: {access}"

        def find(point: Point) -> Point:
            found = tuple(f(point) for f in functions)
            for k, extent in zip(found, shape, strict=True):
                if not 0 <= k < extent:
                    raise BoundsError(f"{where}: subscripts {found} are outside {shape}")
            return found

        return find

    def value(self, e: ir.Expr) -> Evaluate:
        match e:
            case ir.Const(dtype=dtype, value=constant):
                number = _types(dtype)(constant)
                return lambda point: number
            case ir.Scalar(name=name):
                scalar = self.scalars[name]
                return lambda point: scalar
            case ir.AffineValue(dtype=dtype, affine=affine):
                function = compile_affine(affine, self.statement.iterators, self.sizes)
                return lambda point: _wrapped(function(point), dtype)
            case ir.Load(access=access):
                array, index = self.memory[access.array], self.index(access)
                return lambda point: array[index(point)]
            case ir.Select(condition=condition, if_true=if_true, if_false=if_false):
                test, a, b = self.value(condition), self.value(if_true), self.value(if_false)

                def select(point: Point) -> Any:
                    chosen, x, y = test(point), a(point), b(point)  # both, as kernels may do
                    return x if chosen else y

                return select
            case ir.Call(dtype=dtype, function=function_name, args=args):
                return _call(dtype, function_name, [self.value(a) for a in args])
        parts = [self.value(child) for child in ir.children(e)]
        operation = _operation(e)
        if len(parts) == 1:
            (only,) = parts
            return lambda point: operation(only(point))
        left, right = parts
        return lambda point: operation(left(point), right(point))


# -- operations ------------------------------------------------------------------------------


def _operation(e: ir.Expr) -> Callable[..., Any]:
    match e:
        case ir.Cast(dtype=dtype):
            return lambda x: cast(x, dtype)
        case ir.Unary(dtype="bool"):
            return np.logical_not
        case ir.Unary(op="neg"):
            return np.negative
        case ir.Unary(op="invert"):
            return np.invert
        case ir.Compare(op=op):
            return _COMPARISONS[op]
        case ir.Binary(dtype=dtype, op=op):
            if op in _INTEGER_DIVISIONS and dtype in ir.INTEGERS:
                divide = _INTEGER_DIVISIONS[op]
                return lambda a, b: _wrapped(divide(int(a), int(b)), dtype)
            if op in ("shl", "shr"):
                shift = _SHIFTS[op]
                return lambda a, b: _wrapped(shift(int(a), int(b)), dtype)
            return _BINARY[op]
    raise InternalError(f"the interpreter does not know {e}")


def cast(value: Any, dtype: str) -> Any:
    """C's conversion; what C leaves undefined (NaN to an integer) becomes the smallest value."""
    if dtype == "bool":
        return np.bool_(value != 0)
    if dtype in ir.FLOATS:
        return _types(dtype)(value)
    if isinstance(value, np.floating):
        return _wrapped(int(value) if np.isfinite(value) else int(np.iinfo(dtype).min), dtype)
    return _wrapped(int(value), dtype)


def _tdiv(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _smaller(a: Any, b: Any) -> Any:
    return a if a < b else b


def _larger(a: Any, b: Any) -> Any:
    return a if a > b else b


_INTEGER_DIVISIONS: Mapping[str, Callable[[int, int], int]] = {
    "tdiv": _tdiv,
    "tmod": lambda a, b: a - b * _tdiv(a, b),
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
}
_SHIFTS: Mapping[str, Callable[[int, int], int]] = {
    "shl": lambda a, b: a << b,
    "shr": lambda a, b: a >> b,
}
_COMPARISONS: Mapping[str, Callable[..., Any]] = {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "eq": np.equal, "ne": np.not_equal,
}  # fmt: skip
_BINARY: Mapping[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "floordiv": np.floor_divide,
    "mod": np.mod,
    "min": _smaller,
    "max": _larger,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "land": np.logical_and,
    "lor": np.logical_or,
}


# -- functions -------------------------------------------------------------------------------


def _fma(a: Any, b: Any, c: Any) -> float:
    if not all(map(math.isfinite, (a, b, c))):
        return float(a) * float(b) + float(c)
    return float(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))


def _round(x: float) -> float:
    """Halves away from zero, as C's round()."""
    return math.copysign(math.floor(abs(x) + 0.5), x) if abs(x) < 2.0**52 else x


# For double, math is the C library that compiled code calls too; NumPy's vector code may differ
# from it in the last place.
_DOUBLE: Mapping[str, Callable[..., float]] = {
    name: getattr(math, name)
    for name in (
        "sqrt", "exp", "exp2", "log", "log2", "log10", "pow", "fabs", "sin", "cos", "tan", "asin",
        "acos", "atan", "atan2", "sinh", "cosh", "tanh", "fmod", "hypot", "cbrt", "erf", "expm1",
        "log1p", "copysign",
    )
}  # fmt: skip
_NUMPY: Mapping[str, Callable[..., Any]] = {
    "sqrt": np.sqrt, "exp": np.exp, "exp2": np.exp2, "log": np.log, "log2": np.log2,
    "log10": np.log10, "pow": np.power, "fabs": np.fabs, "abs": np.abs, "sin": np.sin,
    "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "atan2": np.arctan2, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "floor": np.floor,
    "ceil": np.ceil, "trunc": np.trunc, "round": _round, "rint": np.rint, "fmin": np.fmin,
    "fmax": np.fmax, "fmod": np.fmod, "hypot": np.hypot, "cbrt": np.cbrt, "erf": math.erf,
    "expm1": np.expm1, "log1p": np.log1p, "copysign": np.copysign, "fma": _fma,
}  # fmt: skip


def _call(dtype: str, function: str, args: list[Evaluate]) -> Evaluate:
    general = _NUMPY[function]
    make = _types(dtype)
    precise = _DOUBLE.get(function) if dtype == "float64" else None
    if precise is None:
        return lambda point: make(general(*(a(point) for a in args)))

    def call(point: Point) -> Any:
        values = [a(point) for a in args]
        try:
            return make(precise(*values))
        except (ValueError, OverflowError):  # where C returns NaN or an infinity
            return make(general(*values))

    return call
