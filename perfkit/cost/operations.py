"""What one instance of a statement computes: counts and chains of operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from perfkit.ir.expr import (
    FLOATS,
    ITEMSIZE,
    Access,
    Binary,
    Call,
    Cast,
    Compare,
    Const,
    Expr,
    Load,
    Scalar,
    Select,
    Unary,
    children,
    walk,
)

_SCALAR_CYCLES = {"div": 5.0, "sqrt": 6.0, "fabs": 0.5, "abs": 0.5, "fmin": 1.0, "fmax": 1.0}
_FUNCTION = 40.0
_LOADED = 1e-9  # tells "loaded, nothing done yet" from "not loaded"
_INTEGER_DIVISION = 12.0


@dataclass(frozen=True, slots=True)
class Operations:
    """What one instance computes: cheap float operations, and cycles of the dear ones."""

    fma: float
    other: float
    dear: float
    chain: float
    is_plain: bool
    has_calls: bool


def operations(value: Expr, write: Access) -> Operations:
    """Count the arithmetic of an expression; ``write`` is the element it goes to."""
    adds = muls = other = dear = 0.0
    plain = value.dtype in FLOATS
    calls = False
    for e in walk(value):
        match e:
            case Binary(op="add" | "sub", dtype=dtype) if dtype in FLOATS:
                adds += 1
            case Binary(op="mul", dtype=dtype) if dtype in FLOATS:
                muls += 1
            case Binary(op="div", dtype=dtype) if dtype in FLOATS:
                dear += _SCALAR_CYCLES["div"] * (0.6 if ITEMSIZE[dtype] < 8 else 1.0)
            case Binary(op="tdiv" | "tmod" | "floordiv" | "mod"):
                dear, plain = dear + _INTEGER_DIVISION, False
            case Unary(op="neg") if e.dtype in FLOATS:
                other += 0.5
            case Call(function=function):
                dear += _SCALAR_CYCLES.get(function, _FUNCTION)
                calls = calls or function not in _SCALAR_CYCLES
                plain = False
            case Cast(arg=arg) if isinstance(arg, Const | Scalar):
                pass
            case Binary() | Unary() | Compare() | Select() | Cast():
                other, plain = other + 1, False
            case _:
                pass
    return Operations(max(adds, muls), other, dear, _chain(value, write), plain, calls)


def _chain(value: Expr, write: Access) -> float:
    """Dependent operations from the loaded element to the result, in units of one addition."""
    return depth_of(value, lambda access: access == write)


def depth_of(value: Expr, starts: Callable[[Access], bool]) -> float:
    """Operations on the longest way from a load that ``starts`` picks; 0 without one."""
    step = 0.0
    match value:
        case Load(access=access):
            return _LOADED if starts(access) else 0.0
        case Binary(op=op):
            step = 3.0 if op == "div" else 1.0
        case Select():
            step = 0.5
        case Call():
            step = 1.0
        case _:
            pass
    inside = max((depth_of(e, starts) for e in children(value)), default=0.0)
    return inside + step if inside else 0.0


__all__ = ["Operations", "depth_of", "operations"]
