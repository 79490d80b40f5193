"""Turn call arguments into NumPy views and typed numbers, without ever copying an array.

torch and CuPy are recognised by what they offer, never imported: whoever passes a tensor has
imported torch already.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from perfkit.errors import (
    ArgumentTypeError,
    DeviceError,
    DtypeError,
    GradientError,
    LayoutError,
    RankError,
    ReadOnlyError,
    SizeError,
)
from perfkit.runtime.signature import Parameter

Array = np.ndarray[Any, np.dtype[Any]]

# DLPack device types whose memory the CPU can address: CPU, pinned CUDA host, pinned ROCm host.
_DLPACK_HOST = (1, 3, 11)
# Beyond this, sums of products of a few sizes may not fit into the int64 of generated code.
SIZE_LIMIT = 2**62


def as_array(value: object, parameter: Parameter) -> Array:
    """A NumPy view of an array argument's own memory.

    Raises:
        ArgumentTypeError: it is no array.
        DeviceError: its memory is not the CPU's.
        GradientError: a torch tensor that takes part in autograd.
        LayoutError: a torch tensor without plain strided memory.
    """
    name = parameter.name
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray):
            raise ArgumentTypeError(
                f"argument {name!r} is a masked array, whose mask a kernel would ignore: "
                "pass .filled(...) or .data"
            )
        return value.view(np.ndarray)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _torch_view(value, parameter, torch)
    if isinstance(value, (np.generic, int, float, complex, str)):
        raise ArgumentTypeError(
            f"argument {name!r} is a {type(value).__name__}, but an array of {parameter.dtype} "
            f"with {parameter.rank} dimensions is needed"
        )
    if hasattr(value, "__cuda_array_interface__"):
        raise DeviceError(
            f"argument {name!r} ({type(value).__name__}) lives on a GPU, but this kernel runs on "
            "the CPU: pass a copy in CPU memory"
        )
    dlpack = hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__")
    if dlpack:
        device = tuple(int(part) for part in value.__dlpack_device__())  # type: ignore[attr-defined]
        if device[0] not in _DLPACK_HOST:
            raise DeviceError(
                f"argument {name!r} ({type(value).__name__}) lives on DLPack device {device}, "
                "but this kernel runs on the CPU: pass a copy in CPU memory"
            )
    try:
        if dlpack:
            return np.from_dlpack(value)  # type: ignore[arg-type]
        if hasattr(value, "__array_interface__"):
            return np.asarray(value)
        return np.asarray(memoryview(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError, RuntimeError) as error:
        raise ArgumentTypeError(
            f"argument {name!r} ({type(value).__name__}) gives no access to its memory as an "
            f"array ({error}): pass a NumPy array or a torch CPU tensor"
        ) from error


def check_plain(name: str, tensor: Any, torch: Any) -> None:
    """Refuse tensors that record gradients or have no plain memory, on any device."""
    if tensor.requires_grad and torch.is_grad_enabled():
        raise GradientError(
            f"argument {name!r} requires a gradient, which a generated kernel does not record: "
            "pass tensor.detach(), or call the kernel under torch.no_grad()"
        )
    if tensor.layout is not torch.strided or tensor.is_conj() or tensor.is_neg():
        raise LayoutError(
            f"argument {name!r} is a sparse, conjugated or negated view without plain memory: "
            "pass .to_dense(), .resolve_conj() or .resolve_neg() of it"
        )


def _torch_view(tensor: Any, parameter: Parameter, torch: Any) -> Array:
    name = parameter.name
    if tensor.device.type != "cpu":
        raise DeviceError(
            f"argument {name!r} is a tensor on {tensor.device}, but this kernel runs on the CPU: "
            "pass tensor.cpu()"
        )
    check_plain(name, tensor, torch)
    try:
        plain = tensor.detach()
        if tensor.dtype is getattr(torch, "bfloat16", None):
            plain = plain.view(torch.int16)
            return _Bfloat16.of(plain.numpy())
        view: Array = plain.numpy()
        return view
    except (RuntimeError, TypeError, ValueError) as error:
        raise DeviceError(
            f"argument {name!r} ({type(tensor).__name__}) has no CPU memory of its own ({error}): "
            "pass a plain tensor"
        ) from error


class _Bfloat16(np.ndarray[Any, np.dtype[Any]]):
    """Marks bit patterns of bfloat16, so that they never pass for int16 data."""

    @staticmethod
    def of(patterns: Array) -> Array:
        return patterns.view(_Bfloat16)


def mark_written(value: object) -> None:
    """Tell autograd that a tensor changes, so that backward refuses values saved before."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor) and not value.is_inference():
        torch.autograd.graph.increment_version(value)


def check_layout(array: Array, parameter: Parameter, original: object) -> None:
    """Refuse an array whose rank, element type or layout generated code cannot take.

    Raises:
        RankError, DtypeError, LayoutError, ReadOnlyError: with the remedy in words.
    """
    name = parameter.name
    if array.ndim != parameter.rank:
        raise RankError(
            f"argument {name!r} has {array.ndim} dimensions (shape {array.shape}), but the kernel "
            f"expects {parameter.rank}"
        )
    dtype = "bfloat16" if isinstance(array, _Bfloat16) else array.dtype.name
    if dtype != parameter.dtype:
        raise DtypeError(
            f"argument {name!r} has dtype {dtype}, but the kernel was compiled for "
            f"{parameter.dtype}: convert it, or compile a kernel for {dtype}"
        )
    if not array.dtype.isnative:
        raise DtypeError(
            f"argument {name!r} has the byte order of another machine ({array.dtype.str}): pass "
            f"{name}.astype({name}.dtype.newbyteorder('='))"
        )
    if not array.flags.c_contiguous:
        negative = any(stride < 0 for stride in array.strides)
        raise LayoutError(
            f"argument {name!r} of shape {array.shape} has "
            f"{'negative strides' if negative else 'strides'} {array.strides} in bytes, but the "
            "kernel needs C-contiguous rows: pass np.ascontiguousarray(...) of it"
            + (" and copy the result back" if parameter.written else "")
        )
    if parameter.written and not array.flags.writeable:
        raise ReadOnlyError(
            f"argument {name!r} ({type(original).__name__}) is read-only, but the kernel writes "
            "to it: pass a writable copy"
        )


def size_value(value: object, parameter: Parameter) -> int:
    """A whole number for a size parameter.

    Raises:
        ArgumentTypeError: not a whole number.
        SizeError: outside the source's integer type, or 2**62 and more.
    """
    number = _index(value, parameter)
    _check_range(number, parameter)
    if abs(number) >= SIZE_LIMIT:
        raise SizeError(f"argument {parameter.name!r} = {number} is not below 2**62")
    return number


def scalar_value(value: object, parameter: Parameter) -> Array:
    """A 0-d array that holds a scalar argument in the kernel's type.

    Raises:
        ArgumentTypeError: not a number of that kind.
        SizeError: an integer outside the type's range.
    """
    dtype = parameter.dtype
    number: int | float | complex
    if "int" in dtype:
        number = _index(value, parameter)
        _check_range(number, parameter)
    elif isinstance(value, (str, bytes, bytearray)):
        raise _not_a_number(value, parameter)
    else:
        convert: Callable[[Any], int | float | complex] = float
        if dtype == "bool" or dtype.startswith("complex"):
            convert = bool if dtype == "bool" else complex
        try:
            number = convert(value)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise _not_a_number(value, parameter) from error
    return np.array(number, dtype=dtype)


def _index(value: object, parameter: Parameter) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise _not_a_number(value, parameter) from error


def _check_range(number: int, parameter: Parameter) -> None:
    info = np.iinfo(parameter.dtype)
    if not info.min <= number <= info.max:
        raise SizeError(
            f"argument {parameter.name!r} = {number} does not fit {parameter.dtype} "
            f"({info.min} to {info.max})"
        )


def _not_a_number(value: object, parameter: Parameter) -> ArgumentTypeError:
    wanted = "whole number" if "int" in parameter.dtype else f"number ({parameter.dtype})"
    return ArgumentTypeError(
        f"argument {parameter.name!r} is {value!r:.60} ({type(value).__name__}), but a {wanted} "
        "is needed"
    )
