"""What a generated Triton module contains, as plain data for whoever compiles or calls it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a kernel: a pointer ("array"), an integer ("size"), a number ("scalar").

    ``dtype`` is NumPy's name of the element type; arrays of "float32" may be called with half
    precision, which is computed with in single precision.
    """

    name: str
    kind: Literal["array", "size", "scalar"]
    dtype: str


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """The interface of one kernel; after ``arguments`` comes the index type ``INDEX``.

    ``fp_fusion``: whether multiplications and additions may become fused ones. ``stages`` are those
    of its loops; where the array ``half_of`` (float32 in the program) is half precision in memory,
    there are ``half_stages`` of them.
    """

    name: str
    arguments: tuple[Argument, ...]
    warps: int
    stages: int
    fp_fusion: bool
    half_of: str = ""
    half_stages: int = 0


@dataclass(frozen=True, slots=True)
class TritonSource:
    """A Python module of kernels and the function ``entry`` that launches them.

    Importing it needs torch and triton; it needs nothing of perfkit.
    """

    entry: str
    text: str
    kernels: tuple[KernelSpec, ...]


__all__ = ["Argument", "KernelSpec", "TritonSource"]
