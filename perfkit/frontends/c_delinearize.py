"""Arrays kept in one dimension: ``A[i * n + j]`` becomes ``A[i][j]`` with rows of length ``n``.

The strides are the factors that loop variables carry in the subscripts, polynomials in the sizes.
Where each divides the next, they are the row lengths of a shape; every subscript is then written in
that mixed-radix system, and its digits must stay within the rows: isl proves it from the loops, or
it becomes an assumption on the sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import gcd

from perfkit.frontends.c_domain import Surveyor
from perfkit.frontends.c_record import Header, Path, Reference
from perfkit.frontends.syntax import Name, Number, Operation, Value
from perfkit.ir.expr import FLOATS

Monomial = tuple[str, ...]
Poly = Mapping[Monomial, int]

MAX_RANK = 6
SMALLEST_CONSTANT_ROW = 8
"""Shorter constant strides, as in ``A[3 * i + c]``, are affine as they are and stay."""


@dataclass(frozen=True)
class Plan:
    """``rows``: the extents after the first. ``indices``: per old subscript, the new ones."""

    rows: tuple[Value, ...]
    indices: Mapping[Value, tuple[Value, ...]]


def plan(references: Sequence[Reference], surveyor: Surveyor) -> Plan | None:
    """How to give a one-dimensional array its shape back; None when it has no better one.

    Assumptions that the shape needs are left with the surveyor.
    """
    sizes = frozenset(surveyor.sizes)
    polys: dict[Value, Poly] = {}
    factors: list[Poly] = []
    for reference in references:
        (value,) = reference.element.indices
        poly = polynomial(value)
        if poly is None or not _names(poly) <= sizes | _variables(reference.path):
            return None
        polys[value] = poly
        found = _factors(poly, sizes)
        if found is None:
            return None
        factors += found.values()
    strides = _strides(factors)
    if strides is None or len(strides) < 2:
        return None
    symbolic = any(_degree(s) for s in strides)
    rows = [r for r in (_divide(a, b) for a, b in pairwise(strides)) if r is not None]
    if len(rows) < len(strides) - 1 or any(_degree(r) > 1 for r in rows):
        return None
    extents = tuple(map(_value, rows))
    chosen: dict[Value, tuple[Value, ...]] = {}
    for value, known in polys.items():
        paths = [r.path for r in references if r.element.indices[0] == value]
        digits = _digits(known, strides, sizes, extents, paths, surveyor, symbolic)
        if digits is None:
            return None
        chosen[value] = digits
    return Plan(extents, chosen)


def _variables(path: Path) -> frozenset[str]:
    return frozenset(e.variable for e in path if isinstance(e, Header))


# -- strides ---------------------------------------------------------------------------------


def _factors(poly: Poly, sizes: frozenset[str]) -> dict[str, Poly] | None:
    """The factor of every loop variable; None where two variables are multiplied."""
    found: dict[str, dict[Monomial, int]] = {}
    for monomial, c in poly.items():
        variables = [n for n in monomial if n not in sizes]
        if len(variables) > 1:
            return None
        if variables:
            rest = tuple(n for n in monomial if n in sizes)
            found.setdefault(variables[0], {})[rest] = c
    return dict(found)


def _strides(factors: Iterable[Poly]) -> list[Poly] | None:
    """The row lengths that make every factor a combination of them, largest first; 1 is last."""
    contents: dict[tuple[tuple[Monomial, int], ...], int] = {}
    constants: set[int] = set()
    for factor in factors:
        if not _degree(factor):
            constants.add(abs(factor.get((), 0)))
            continue
        content = gcd(*factor.values())
        lead = max(factor, key=lambda m: (len(m), m))
        sign = 1 if factor[lead] > 0 else -1
        primitive = tuple(sorted((m, sign * c // content) for m, c in factor.items()))
        contents[primitive] = gcd(contents.get(primitive, 0), content)
    basis: list[Poly] = [{(): 1}]
    for constant in sorted(constants):
        if constant >= SMALLEST_CONSTANT_ROW and constant % basis[-1][()] == 0:
            basis.append({(): constant})
    if contents:
        basis = basis[:1]  # with symbolic rows, a constant factor is a stride within a row
    for primitive in sorted(contents, key=lambda p: (max(len(m) for m, _ in p), len(p), p)):
        stride = {m: c * contents[primitive] for m, c in primitive}
        if _decompose(stride, basis[::-1]) is not None and len(basis) > 1:
            continue
        if _divide(stride, basis[-1]) is None:
            return None
        basis.append(stride)
    return basis[::-1] if len(basis) <= MAX_RANK else None


def _decompose(poly: Poly, strides: Sequence[Poly]) -> list[int] | None:
    """Integer digits of a polynomial; None when one of them is not a constant."""
    digits = []
    rest = dict(poly)
    for stride in strides:
        quotient, rest = _reduce(rest, stride)
        if _degree(quotient):
            return None
        digits.append(quotient.get((), 0))
    return digits if not rest else None


# -- digits ----------------------------------------------------------------------------------


def _digits(
    poly: Poly, strides: Sequence[Poly], sizes: frozenset[str], rows: Sequence[Value],
    paths: Sequence[Path], surveyor: Surveyor, symbolic: bool,
) -> tuple[Value, ...] | None:  # fmt: skip
    """The subscript in the system of ``strides``, within the rows; may add assumptions."""
    factors = _factors(poly, sizes)
    assert factors is not None
    parts: list[dict[Monomial, int]] = [{} for _ in strides]
    for variable, factor in factors.items():
        quotients = _decompose(factor, strides)
        if quotients is None:
            return None
        for part, q in zip(parts, quotients, strict=True):
            if q:
                part[(variable,)] = q
    rest: dict[Monomial, int] = {m: c for m, c in poly.items() if all(n in sizes for n in m)}
    for part, stride in zip(parts, strides, strict=True):
        quotient, rest = _reduce(rest, stride)
        for monomial, c in quotient.items():
            part[monomial] = part.get(monomial, 0) + c
    if rest or any(_degree(p) > 1 for p in parts):
        return None
    candidates = [_shifted(parts, rows, shift) for shift in _shifts(len(strides))]
    for digits in candidates:
        if all(surveyor.always(v, p) for p in paths for v in _claims(digits, rows)):
            return digits
    if not symbolic:
        return None  # affine as it is; a test at run time would cost more than it gives
    for digits in candidates[:1]:
        outcomes = [surveyor.require(v, p) for p in paths for v in _claims(digits, rows)]
        if all(o in ("proved", "assumed") for o in outcomes):
            return digits
    return None


def _shifts(rank: int) -> list[tuple[int, ...]]:
    """Carries from digit to digit, none first: ``n - 1`` is column -1 of row 1, or n - 1 of 0."""
    options = product((0, -1, 1), repeat=rank - 1)
    return sorted(options, key=lambda s: sum(map(abs, s)))[:9]


def _shifted(
    parts: Sequence[Poly], rows: Sequence[Value], shift: Sequence[int]
) -> tuple[Value, ...]:
    values = [_value(p) for p in parts]
    for k, carry in enumerate(shift):
        if carry:
            values[k] = Operation("int64", "add", (values[k], Number("int64", carry)))
            op = "sub" if carry > 0 else "add"
            values[k + 1] = Operation("int64", op, (values[k + 1], rows[k]))
    return tuple(values)


def _claims(digits: Sequence[Value], rows: Sequence[Value]) -> list[Value]:
    """What must not be negative for the digits to lie within the rows."""
    claims: list[Value] = []
    for digit, row in zip(digits[1:], rows, strict=True):
        room = Operation("int64", "sub", (row, Operation("int64", "add", (digit, _ONE))))
        claims += [digit, room]
    return claims


_ONE = Number("int64", 1)


# -- polynomials -----------------------------------------------------------------------------


def polynomial(value: Value) -> dict[Monomial, int] | None:
    """An integer value as a polynomial in its names; None for other operations."""
    if value.dtype in FLOATS:
        return None
    match value:
        case Number(value=number):
            return _clean({(): int(number)})
        case Name(name=name):
            return {(name,): 1}
        case Operation(op="cast", args=(arg,)):
            return polynomial(arg)
        case Operation(op="neg", args=(arg,)):
            inner = polynomial(arg)
            return None if inner is None else {m: -c for m, c in inner.items()}
        case Operation(op="add" | "sub" | "mul", args=(left, right)):
            a, b = polynomial(left), polynomial(right)
            if a is None or b is None:
                return None
            if value.op == "mul":
                return _multiply(a, b)
            sign = 1 if value.op == "add" else -1
            return _clean({m: a.get(m, 0) + sign * b.get(m, 0) for m in {**a, **b}})
    return None


def _clean(poly: Mapping[Monomial, int]) -> dict[Monomial, int]:
    return {m: c for m, c in poly.items() if c}


def _multiply(a: Poly, b: Poly) -> dict[Monomial, int]:
    result: dict[Monomial, int] = {}
    for m, c in a.items():
        for n, d in b.items():
            key = tuple(sorted(m + n))
            result[key] = result.get(key, 0) + c * d
    return _clean(result)


def _degree(poly: Poly) -> int:
    return max((len(m) for m in poly), default=0)


def _names(poly: Poly) -> frozenset[str]:
    return frozenset(n for m in poly for n in m)


def _divide(a: Poly, b: Poly) -> dict[Monomial, int] | None:
    """``a / b`` where it is exact."""
    quotient, rest = _reduce(a, b)
    return quotient if not rest else None


def _reduce(a: Poly, b: Poly) -> tuple[dict[Monomial, int], dict[Monomial, int]]:
    """Division with remainder by the leading term, in graded order."""
    lead = max(b, key=lambda m: (len(m), m))
    quotient: dict[Monomial, int] = {}
    rest = dict(a)
    for monomial in sorted(rest, key=lambda m: (len(m), m), reverse=True):
        c = rest.get(monomial, 0)
        over = _over(monomial, lead)
        if not c or over is None or c % b[lead]:
            continue
        q = c // b[lead]
        quotient[over] = quotient.get(over, 0) + q
        for m, d in _multiply({over: q}, b).items():
            rest[m] = rest.get(m, 0) - d
        rest = _clean(rest)
    # Subtracting may have made new leading terms; go on until nothing divides.
    if any(_over(m, lead) is not None and c % b[lead] == 0 and m not in a for m, c in rest.items()):
        more, rest = _reduce(rest, b)
        for m, q in more.items():
            quotient[m] = quotient.get(m, 0) + q
    return _clean(quotient), rest


def _over(monomial: Monomial, divisor: Monomial) -> Monomial | None:
    rest = list(monomial)
    for name in divisor:
        if name not in rest:
            return None
        rest.remove(name)
    return tuple(rest)


def _value(poly: Poly) -> Value:
    """A polynomial of degree at most one as a value."""
    total: Value | None = None
    for monomial, c in sorted(poly.items(), key=lambda p: (-len(p[0]), p[0])):
        term: Value = Number("int64", c)
        if monomial:
            term = Name("int64", monomial[0])
            if c != 1:
                term = Operation("int64", "mul", (Number("int64", c), term))
        total = term if total is None else Operation("int64", "add", (total, term))
    return Number("int64", 0) if total is None else total
