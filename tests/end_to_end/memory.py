"""Arguments in guarded memory, and comparing what two runs left there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

_FENCE = 4096
_PATTERN = 0xA5


@dataclass(frozen=True)
class Guarded:
    """Copies of arguments; each array lies between fences and is aligned to its elements only."""

    arguments: dict[str, Any]
    buffers: dict[str, np.ndarray[Any, Any]]

    @staticmethod
    def of(arguments: Mapping[str, Any]) -> Guarded:
        copies: dict[str, Any] = {}
        buffers: dict[str, np.ndarray[Any, Any]] = {}
        for name, value in arguments.items():
            if not isinstance(value, np.ndarray):
                copies[name] = value
                continue
            start = _FENCE + value.itemsize
            buffer = np.full(start + value.nbytes + _FENCE, _PATTERN, np.uint8)
            inner = buffer[start : start + value.nbytes].view(value.dtype).reshape(value.shape)
            inner[...] = value
            copies[name], buffers[name] = inner, buffer
        return Guarded(copies, buffers)

    def overrun(self) -> str | None:
        """The array whose surroundings were written to."""
        for name, buffer in self.buffers.items():
            array = self.arguments[name]
            start = _FENCE + array.itemsize
            outside = (buffer[:start], buffer[start + array.nbytes :])
            if any((part != _PATTERN).any() for part in outside):
                return name
        return None


def arrays_of(arguments: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    return {n: v for n, v in arguments.items() if isinstance(v, np.ndarray)}


def difference(
    expected: Mapping[str, Any], found: Mapping[str, Any], tolerance: float | None
) -> str | None:
    """The first array that differs, in words.

    ``tolerance`` None means bit for bit (zeros of either sign and NaNs of any kind are equal);
    otherwise it is relative to each array's largest element, its square root for float32.
    """
    for name, want in expected.items():
        got, want = np.asarray(found[name]), np.asarray(want)
        if tolerance is None or want.dtype.kind != "f":
            same = (got == want) | ((got != got) & (want != want))
            if not np.all(same):
                return _words(name, got, want, ~np.atleast_1d(same))
            continue
        bound = tolerance if want.dtype == np.float64 else tolerance**0.5
        finite = np.abs(want[np.isfinite(want)])
        scale = float(finite.max()) if finite.size else 0.0
        near = np.isclose(got, want, rtol=bound, atol=bound * scale, equal_nan=True)
        if not np.all(near):
            return _words(name, got, want, ~np.atleast_1d(near))
    return None


def _words(
    name: str, got: np.ndarray[Any, Any], want: np.ndarray[Any, Any], wrong: np.ndarray[Any, Any]
) -> str:
    first = tuple(int(k) for k in np.argwhere(wrong)[0])
    here, there = np.atleast_1d(got)[first], np.atleast_1d(want)[first]
    return (
        f"{name} differs in {int(wrong.sum())} of {want.size} elements, first at {list(first)}: "
        f"{here!r} instead of {there!r}"
    )
