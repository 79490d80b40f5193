"""What every kind of kernel does with a call: order the arguments, agree on sizes, check bounds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perfkit.errors import ArgumentCountError, BoundsError, SizeError
from perfkit.runtime import arguments
from perfkit.runtime.signature import Parameter, Signature

Precondition = Callable[[Mapping[str, int]], str | None]
"""Given the sizes by name, a message when the program would leave an array's bounds."""


def ordered(
    signature: Signature, args: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[Any, ...]:
    """The arguments in the signature's order. Raises ArgumentCountError."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    expected = inspect.Signature([inspect.Parameter(p.name, kind) for p in signature.inputs])
    try:
        return expected.bind(*args, **keywords).args
    except TypeError as error:
        raise ArgumentCountError(f"{signature}: {error}") from None


def named_sizes(
    signature: Signature, args: Sequence[Any], shapes: Sequence[tuple[int, ...]],
    precondition: Precondition | None = None,
) -> dict[str, int]:  # fmt: skip
    """The value of every size; ``shapes`` are those of the array arguments, in order.

    Raises:
        SizeError: two places give one size different values, or a constant extent differs.
        BoundsError: with these sizes the program would leave an array's bounds.
    """
    sizes: dict[str, tuple[int, str]] = {}
    remaining = iter(shapes)
    for parameter, value in zip(signature.inputs, args, strict=True):
        if parameter.kind == "size":
            number = arguments.size_value(value, parameter)
            _agree(sizes, parameter.name, number, f"argument {parameter.name!r}")
        elif parameter.kind == "array":
            _bind_shape(sizes, parameter, next(remaining))
    named = {name: sizes[name][0] for name in signature.sizes}
    problem = precondition(named) if precondition else None
    if problem:
        shown = ", ".join(f"{name} = {size}" for name, size in named.items())
        raise BoundsError(f"{signature.name} with {shown}: {problem}")
    return named


def _bind_shape(
    sizes: dict[str, tuple[int, str]], parameter: Parameter, shape: tuple[int, ...]
) -> None:
    for axis, (dim, size) in enumerate(zip(parameter.shape, shape, strict=True)):
        where = f"dimension {axis} of argument {parameter.name!r}"
        if isinstance(dim, str):
            _agree(sizes, dim, size, where)
        elif dim != size:
            raise SizeError(f"{where} is {size}, but the kernel was compiled for {dim}")


def _agree(sizes: dict[str, tuple[int, str]], name: str, size: int, where: str) -> None:
    """Bind a size, or refuse one that differs from the place that bound it first."""
    known, first = sizes.setdefault(name, (size, where))
    if known != size:
        raise SizeError(f"size {name!r} is {known} by {first}, but {size} by {where}")


__all__ = ["Precondition", "named_sizes", "ordered"]
