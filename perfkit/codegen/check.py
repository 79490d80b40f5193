"""Comparing a compiled kernel with the oracle on small data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from perfkit.codegen.interpret import run
from perfkit.errors import CheckFailed
from perfkit.ir.expr import FLOATS
from perfkit.ir.scop import Scop
from perfkit.runtime.signature import Signature

_EXTENTS = (7, 11, 9, 13, 8, 10)
_TOLERANCE = {"float32": 1e-4, "float64": 1e-9}


def check_kernel(
    scop: Scop, signature: Signature, call: Callable[..., Any], seed: int = 0
) -> float:
    """Run ``call`` and the interpreter on the same random data; returns the largest error.

    The error is relative to the largest element of each array. Raises CheckFailed, naming the
    array and the error, when it exceeds 1e-9 (1e-4 for float32) or an integer differs.
    """
    rng = np.random.default_rng(seed)
    sizes = _sizes(scop, signature)
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


def _sizes(scop: Scop, signature: Signature) -> dict[str, int]:
    """Small, unequal sizes that satisfy the context where possible."""
    sizes = {n: _EXTENTS[k % len(_EXTENTS)] for k, n in enumerate(signature.sizes)}
    if not scop.context.contains(sizes):
        sizes = dict.fromkeys(signature.sizes, 9)
    return sizes


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
