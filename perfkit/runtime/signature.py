"""What a kernel is called with, as plain data; generated code and its caller agree through it.

The compiled entry point is ``int64_t <name>_call(void **args)``: first one pointer to an int64
per entry of ``Signature.sizes``, then one pointer per parameter that is not a size, in order
(the data of an array, the typed value of a scalar or a result). It returns 0 when done, 1 when
it refused before it wrote anything, any other code when it failed half-way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perfkit.errors import SignatureError

# bfloat16 has no NumPy type: torch tensors of it travel as their 16-bit patterns.
DTYPES = frozenset(
    ["bool", "float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)
KINDS = ("array", "scalar", "size", "result")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel.

    Attributes:
        name: as the caller may use it for a keyword.
        kind: "array"; "scalar", a number passed by value; "size", a whole number taken from the
            call that is one of ``Signature.sizes``; "result", a number returned.
        dtype: NumPy's name of the element type, or "bfloat16" for arrays. For a size it is the
            integer type of the source, whose range is checked.
        rank: number of dimensions of an array.
        shape: per dimension the size symbol it defines (or must equal), or a constant.
        written: whether the kernel may write to the array.
    """

    name: str
    kind: Literal["array", "scalar", "size", "result"]
    dtype: str
    rank: int = 0
    shape: tuple[str | int, ...] = ()
    written: bool = False

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise SignatureError(f"parameter {self.name!r}: {problem}")

    def _problem(self) -> str:
        if not self.name.isidentifier():
            return "the name is not an identifier"
        if self.kind not in KINDS:
            return f"kind {self.kind!r} is none of {', '.join(KINDS)}"
        if self.dtype not in DTYPES:
            return f"dtype {self.dtype!r} is none of {', '.join(sorted(DTYPES))}"
        if len(self.shape) != self.rank:
            return f"rank {self.rank} with {len(self.shape)} dimensions in shape {self.shape}"
        if self.kind == "array":
            return ""
        if self.rank or self.written:
            return f"a {self.kind} has neither dimensions nor a written mark"
        if self.dtype == "bfloat16":
            return "bfloat16 is for arrays only"
        if self.kind == "size" and "int" not in self.dtype:
            return f"a size of dtype {self.dtype}"
        return ""


@dataclass(frozen=True)
class Signature:
    """The parameters of a kernel in call order, and its hidden sizes in ABI order.

    Raises:
        SignatureError: two parameters share a name, or a size is bound by nothing.
    """

    name: str
    parameters: tuple[Parameter, ...]
    sizes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise SignatureError(f"{self.name!r}: the kernel's name is not an identifier")
        names = [parameter.name for parameter in self.parameters]
        for kind, group in (("parameter", names), ("size", list(self.sizes))):
            double = {name for name in group if group.count(name) > 1}
            if double:
                raise SignatureError(f"{self.name}: {kind} {min(double)!r} appears twice")
        bound: set[str] = set()
        for parameter in self.parameters:
            if parameter.kind == "size":
                bound.add(parameter.name)
            bound.update(dim for dim in parameter.shape if isinstance(dim, str))
        unbound, unknown = set(self.sizes) - bound, bound - set(self.sizes)
        if unbound:
            raise SignatureError(f"{self.name}: no array or argument gives size {min(unbound)!r}")
        if unknown:
            raise SignatureError(f"{self.name}: {min(unknown)!r} is not listed in sizes")

    @property
    def inputs(self) -> tuple[Parameter, ...]:
        """The parameters a caller passes, in order: all but the results."""
        return tuple(parameter for parameter in self.parameters if parameter.kind != "result")

    def __str__(self) -> str:
        """``gemm(n, alpha, A[n, 64]: float64)``, as error messages show it."""
        parts = []
        for parameter in self.inputs:
            dims = f"[{', '.join(map(str, parameter.shape))}]" if parameter.rank else ""
            parts.append(f"{parameter.name}{dims}: {parameter.dtype}")
        return f"{self.name}({', '.join(parts)})"
