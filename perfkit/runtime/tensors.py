"""Arguments of a Triton kernel as torch tensors that share the caller's memory.

torch tensors are taken as they are; CuPy arrays, and whatever else offers ``__dlpack__``, come in
without a copy. torch is imported when a call needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from perfkit.errors import (
    ArgumentTypeError,
    DeviceError,
    DtypeError,
    GpuMissing,
    LayoutError,
    OverlapError,
    RankError,
    ReadOnlyError,
)
from perfkit.runtime.arguments import check_plain
from perfkit.runtime.signature import Parameter

HALF = ("float16", "bfloat16")
"""What float32 arrays of a Triton kernel may be in memory."""


def as_tensor(value: Any, parameter: Parameter, interpreted: bool) -> Any:
    """A tensor over the memory of an array argument, checked for type and layout.

    ``interpreted``: kernels run on the CPU, in Triton's interpreter; tensors and NumPy arrays in
    CPU memory are taken.

    Raises:
        CallError: its subclasses, with the remedy in words.
    """
    import torch

    name = parameter.name
    tensor: Any
    if isinstance(value, torch.Tensor):
        tensor = value
    elif isinstance(value, np.ndarray):
        tensor = _of_numpy(value, parameter, interpreted, torch)
    elif hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        try:
            tensor = torch.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise ArgumentTypeError(
                f"argument {name!r} ({type(value).__name__}) gives no access to its memory "
                f"({error}): pass a torch tensor or a CuPy array"
            ) from error
    else:
        raise ArgumentTypeError(
            f"argument {name!r} is a {type(value).__name__}, but an array of {parameter.dtype} "
            f"with {parameter.rank} dimensions is needed: pass a torch tensor or a CuPy array"
        )
    _check(tensor, parameter, interpreted, torch)
    return tensor


def _of_numpy(value: Any, parameter: Parameter, interpreted: bool, torch: Any) -> Any:
    name = parameter.name
    if not interpreted:
        raise _on_the_cpu(name, "a NumPy array", f"torch.from_numpy({name}).cuda()")
    if isinstance(value, np.ma.MaskedArray):
        raise ArgumentTypeError(
            f"argument {name!r} is a masked array, whose mask a kernel would ignore: "
            "pass .filled(...) or .data"
        )
    if parameter.written and not value.flags.writeable:
        raise ReadOnlyError(
            f"argument {name!r} is read-only, but the kernel writes to it: pass a writable copy"
        )
    try:
        return torch.from_numpy(value if value.flags.writeable else value.view())
    except (TypeError, ValueError) as error:
        raise LayoutError(f"argument {name!r}: {error}") from error


def _on_the_cpu(name: str, what: str, remedy: str) -> DeviceError:
    return DeviceError(
        f"argument {name!r} is {what} in CPU memory, but this kernel runs on the GPU: pass "
        f"{remedy} (TRITON_INTERPRET=1, set before triton is imported, runs kernels on the CPU)"
    )


def _check(tensor: Any, parameter: Parameter, interpreted: bool, torch: Any) -> None:
    name = parameter.name
    if tensor.device.type != "cuda" and not interpreted:
        if tensor.device.type == "cpu":
            raise _on_the_cpu(name, "a tensor", f"{name}.cuda()")
        raise DeviceError(f"argument {name!r} is on {tensor.device}, but this kernel needs CUDA")
    check_plain(name, tensor, torch)
    if tensor.ndim != parameter.rank:
        raise RankError(
            f"argument {name!r} has {tensor.ndim} dimensions (shape {tuple(tensor.shape)}), but "
            f"the kernel expects {parameter.rank}"
        )
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype != parameter.dtype and not (parameter.dtype == "float32" and dtype in HALF):
        raise DtypeError(
            f"argument {name!r} has dtype {dtype}, but the kernel was made for {parameter.dtype}: "
            f"convert it, or make a kernel for {dtype}"
        )
    if interpreted and dtype == "bfloat16":
        raise DtypeError(
            f"argument {name!r} has dtype bfloat16, whose products Triton's interpreter gets "
            "wrong: interpret with float16 or float32"
        )
    if not tensor.is_contiguous():
        raise LayoutError(
            f"argument {name!r} of shape {tuple(tensor.shape)} has strides {tensor.stride()}, but "
            "the kernel needs contiguous rows: pass .contiguous() of it"
            + (" and copy the result back" if parameter.written else "")
        )


def check_together(tensors: Sequence[Any], parameters: Sequence[Parameter]) -> None:
    """Refuse tensors on several devices, and written ones that share memory.

    Raises:
        DeviceError: they are on several devices.
        OverlapError: a written tensor shares memory with another one.
    """
    spans = [(t.data_ptr(), t.data_ptr() + t.numel() * t.element_size()) for t in tensors]
    for k, (tensor, parameter) in enumerate(zip(tensors, parameters, strict=True)):
        if tensor.device != tensors[0].device:
            raise DeviceError(
                f"arguments {parameters[0].name!r} and {parameter.name!r} are on "
                f"{tensors[0].device} and {tensor.device}: move them to one device"
            )
        for j, (low, high) in enumerate(spans):
            if parameter.written and j != k and spans[k][0] < high and low < spans[k][1]:
                raise OverlapError(
                    f"argument {parameter.name!r}, which the kernel writes, shares memory with "
                    f"argument {parameters[j].name!r}: pass a copy of one of them"
                )


@contextmanager
def launching(values: Iterable[Any], device: Any) -> Iterator[None]:
    """Launches go to ``device`` and to the caller's stream: CuPy's current one for CuPy arrays."""
    import torch

    if device is None or device.type != "cuda":
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(torch.cuda.device(device))
        cupy = sys.modules.get("cupy")
        if cupy is not None and any(isinstance(v, cupy.ndarray) for v in values):
            with cupy.cuda.Device(device.index):
                pointer = cupy.cuda.get_current_stream().ptr
            # both libraries call the default stream 0
            external = torch.cuda.ExternalStream(pointer, device=device)
            stack.enter_context(torch.cuda.stream(external))
        yield


def mark_written(values: Iterable[Any]) -> None:
    """Tell autograd that these change, so that backward refuses values saved before."""
    import torch

    for value in values:
        if isinstance(value, torch.Tensor) and not value.is_inference():
            torch.autograd.graph.increment_version(value)


def require_gpu() -> None:
    """Raise GpuMissing, with the remedy, when no kernel can be launched."""
    import torch

    if not torch.cuda.is_available():
        raise GpuMissing(
            "no GPU that torch can use was found, so a Triton kernel cannot run: use "
            'target="cpu", or set TRITON_INTERPRET=1 before triton is imported to interpret '
            "kernels on the CPU (slow)"
        )


__all__ = ["HALF", "as_tensor", "check_together", "launching", "mark_written", "require_gpu"]
