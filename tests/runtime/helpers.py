"""Short names for parameters."""

from __future__ import annotations

from perfkit.runtime.signature import Parameter


def array(name: str, *shape: str | int, dtype: str = "float64", written: bool = False) -> Parameter:
    return Parameter(name, "array", dtype, len(shape), shape, written)
