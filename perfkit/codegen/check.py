"""Comparing a compiled kernel with the oracle on small data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import islpy as isl
import numpy as np

from perfkit import log
from perfkit.analysis.bounds import bounds_check
from perfkit.codegen.interpret import run
from perfkit.errors import CheckFailed
from perfkit.ir.expr import FLOATS
from perfkit.ir.isl import Polyhedra
from perfkit.ir.scop import Scop
from perfkit.runtime.signature import Signature

_EXTENTS = (7, 11, 9, 13, 8, 10)
_STARTS = (37, 17, 7, 3)
"""The least size of a choice: larger ones reach more of the tiles and strips of the code."""

_SMALL = 7
_SCALED = (60, 12)
MOST = 100_000
"""Instances of all statements together that the interpreter is given, where that can be helped."""

_TOLERANCE = {"float32": 1e-4, "float64": 1e-9}


def check_kernel(
    scop: Scop,
    signature: Signature,
    call: Callable[..., Any],
    example: Mapping[str, int] | None = None,
    seed: int = 0,
) -> float:
    """Run ``call`` and the interpreter on the same random data; returns the largest error.

    The error is relative to the largest element of each array. Raises CheckFailed, naming the
    array and the error, when it exceeds 1e-9 (1e-4 for float32) or an integer differs. ``example``
    are sizes of an actual call: small ones like them are used.
    """
    rng = np.random.default_rng(seed)
    sizes = small_sizes(scop, signature, example)
    if sizes is None:
        log.get("check").warning(
            "%s is not checked: no small sizes keep it inside its arrays", signature.name
        )
        return 0.0
    actual: list[Any] = []
    scalars: dict[str, Any] = {}
    for p in signature.inputs:
        if p.kind == "size":
            actual.append(sizes[p.name])
        elif p.kind == "array":
            shape = tuple(sizes[d] if isinstance(d, str) else d for d in p.shape)
            actual.append(_data(rng, p.dtype, shape))
        else:
            actual.append(_data(rng, p.dtype, ()).item())
            scalars[p.name] = actual[-1]
    expected = [a.copy() if isinstance(a, np.ndarray) else a for a in actual]
    memory = {
        p.name: a for p, a in zip(signature.inputs, expected, strict=True) if p.kind == "array"
    }
    results = [p for p in signature.parameters if p.kind == "result"]
    for p in results:
        memory[p.name] = np.zeros((), p.dtype)
    known = {s.name for s in scop.scalars}
    run(scop, sizes, memory, {n: v for n, v in scalars.items() if n in known})
    returned = call(*actual)
    values = () if not results else returned if len(results) > 1 else (returned,)
    worst = 0.0
    pairs = [
        (p.name, p.dtype, got, memory[p.name])
        for p, got in zip(signature.inputs, actual, strict=True)
        if p.written
    ]
    pairs += [
        (p.name, p.dtype, np.asarray(v), memory[p.name])
        for p, v in zip(results, values, strict=True)
    ]
    for name, dtype, got, want in pairs:
        error = _error(np.asarray(got), want)
        worst = max(worst, error)
        if not error <= _TOLERANCE.get(dtype, 0.0):
            raise CheckFailed(
                f"{signature.name}: {name} differs from the interpreter by {error:.2g} (relative) "
                f"at sizes {sizes}: please report this with the program and its schedule script"
            )
    return worst


def example_sizes(
    signature: Signature, args: tuple[Any, ...], keywords: Mapping[str, Any]
) -> dict[str, int]:
    """The sizes of an example call; those of arguments left out are missing."""
    named = dict(zip((p.name for p in signature.inputs), args, strict=False)) | dict(keywords)
    sizes: dict[str, int] = {}
    for p in signature.inputs:
        if p.name not in named:
            continue
        if p.kind == "size":
            sizes[p.name] = int(named[p.name])
        elif p.kind == "array":
            extents = zip(p.shape, named[p.name].shape, strict=True)
            sizes |= {symbol: int(n) for symbol, n in extents if isinstance(symbol, str)}
    return sizes


def small_sizes(
    scop: Scop, signature: Signature, example: Mapping[str, int] | None = None
) -> dict[str, int] | None:
    """Small sizes, unequal where possible, with which the program stays inside its arrays.

    Sizes that are equal in the example stay equal, the larger stay larger, or all keep their
    ratios. The first choice that is not too much work for an interpreter, or the least work; None
    when no choice fits.
    """
    check = bounds_check(scop)
    names = signature.sizes
    choices = [{n: _EXTENTS[k % len(_EXTENTS)] for k, n in enumerate(names)}]
    choices.append(dict.fromkeys(names, 9))
    if example is not None and set(names) <= set(example):
        like = [{n: spread.get(example[n], example[n]) for n in names} for spread in _spreads(
            {example[n] for n in names}
        )]  # fmt: skip
        choices = [*like, *choices]
    fitting = [(work(scop, sizes), sizes) for sizes in choices if check.problem(sizes) is None]
    quick = [sizes for instances, sizes in fitting if instances <= MOST]
    if quick or not fitting:
        return quick[0] if quick else None
    return min(fitting, key=lambda choice: choice[0])[1]


def work(scop: Scop, sizes: Mapping[str, int]) -> int:
    """The instances of all statements, counted in the box around each domain."""
    poly = Polyhedra(scop)
    total = 0
    for domain in poly.domains.values():
        for k, name in enumerate(scop.parameters):
            domain = domain.fix_val(
                isl.dim_type.param, k, isl.Val.int_from_si(poly.ctx, sizes[name])
            )
        if not domain.is_empty():
            total += prod(
                domain.dim_max_val(k).to_python() - domain.dim_min_val(k).to_python() + 1
                for k in range(domain.dim(isl.dim_type.set))
            )
    return total


def _spreads(values: set[int]) -> list[dict[int, int]]:
    """Small numbers for the positive ones: in the same order, and in the same ratios."""
    positive = sorted(v for v in values if v > 0)
    large = [v for v in positive if v > _SMALL]
    some = [
        {v: start + 2 * k for k, v in enumerate(chosen)}
        for start in _STARTS for chosen in ((positive, large) if large else (positive,))
    ]  # fmt: skip
    ratios = [{v: max(1, v * most // positive[-1]) for v in positive} for most in _SCALED]
    return [*some, *ratios]


def _data(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Any:
    if dtype in FLOATS:
        return np.asarray(rng.uniform(0.5, 1.5, shape), dtype)
    if dtype == "bool":
        return np.asarray(rng.integers(0, 2, shape), dtype)
    return np.asarray(rng.integers(0, 4, shape), dtype)


def _error(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> float:
    if want.size == 0:
        return 0.0
    if want.dtype.kind != "f":
        return 0.0 if np.array_equal(got, want) else 1.0
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    if np.all(same):
        return 0.0
    finite = np.abs(want[np.isfinite(want)])
    scale = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    difference = np.abs(got.astype("float64") - want.astype("float64"))
    return float(np.max(np.where(same, 0.0, difference))) / scale
