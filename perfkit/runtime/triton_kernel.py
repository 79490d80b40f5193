"""A generated Triton module as a kernel, callable on torch tensors and CuPy arrays."""

from __future__ import annotations

import importlib.util
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from perfkit.errors import GpuMissing
from perfkit.runtime import arguments, tensors
from perfkit.runtime.call import Precondition, named_sizes, ordered
from perfkit.runtime.signature import Signature
from perfkit.runtime.triton_compile import load_module
from perfkit.runtime.triton_module import TritonSource

INSTALL = "pip install 'perfkit[gpu]'"

_EMULATED: Mapping[str, Callable[..., Any]] = {
    "pow": np.power, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "atan2": np.arctan2, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "expm1": np.expm1,
    "log1p": np.log1p, "log10": np.log10, "exp10": lambda x: np.power(10.0, x), "cbrt": np.cbrt,
    "rint": np.rint, "trunc": np.trunc, "fmod": np.fmod, "hypot": np.hypot,
    "round": lambda x: np.trunc(x + np.copysign(0.5, x)), "fmin": np.fmin,
    "fmax": np.fmax, "copysign": np.copysign,
}  # fmt: skip


@dataclass(frozen=True)
class _Loaded:
    """An imported module; ``folder`` keeps its file alive for tracebacks."""

    launch: Callable[..., Any]
    interpreted: bool
    folder: tempfile.TemporaryDirectory[str]


class TritonKernel:
    """Triton kernels and their launcher.

    Call it with the arguments of :attr:`signature`, in order or by keyword: torch CUDA tensors,
    CuPy arrays, or anything else that offers its CUDA memory by ``__dlpack__``. Memory is used in
    place, never copied; written arrays change. A float32 array may be float16 or bfloat16 in
    memory: it is computed with in single precision and rounded when it is stored. Launches go to
    the arguments' device and the caller's stream, and are not waited for, unless the program
    returns numbers. Under ``TRITON_INTERPRET=1`` (set before triton is imported) kernels run on
    the CPU, on CPU tensors and NumPy arrays.

    Attributes:
        signature: what it is called with.
        schedule: the script that leads from the program to its mapping.
        module: the generated module, with the interfaces of its kernels.
        predicted: seconds that the cost model expects at the example's sizes; None if it cannot.
    """

    def __init__(
        self, signature: Signature, module: TritonSource, schedule: str = "", *,
        explain: Callable[[], str] | str = "", precondition: Precondition | None = None,
        predicted: float | None = None,
    ) -> None:  # fmt: skip
        """Nothing is imported or compiled before the first call."""
        self.signature = signature
        self.module = module
        self.schedule = schedule
        self.__name__ = signature.name
        self.__doc__ = f"Triton kernels {signature}."
        self._explain = explain
        self.predicted = predicted
        self._precondition = precondition
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None
        self._arrays = [p for p in signature.inputs if p.kind == "array"]

    def __repr__(self) -> str:
        return f"<TritonKernel {self.signature}>"

    @property
    def source(self) -> str:
        """The generated module; it runs without perfkit."""
        return self.module.text

    def explain(self) -> str:
        """Why this kernel looks as it does, in words."""
        return self._explain() if callable(self._explain) else self._explain

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Launch the kernels on these arguments; returns the results as Python numbers, or None.

        Raises:
            CallError: the call is refused, before anything ran (see its subclasses).
            GpuMissing: torch, triton or a GPU is missing.
        """
        values = ordered(self.signature, args, keywords)
        taken = self.bind(values)
        inputs = self.signature.inputs
        arrays = (t for t, p in zip(taken, inputs, strict=True) if p.kind == "array")
        device = next((t.device for t in arrays), None)
        with tensors.launching(values, device):
            returned = self._load().launch(*taken)
        tensors.mark_written(v for p, v in zip(inputs, values, strict=True) if p.written)
        return returned

    def bind(self, values: Sequence[Any]) -> list[Any]:
        """Ordered arguments, checked: tensors over the same memory, and Python numbers.

        Raises:
            CallError, GpuMissing: as for a call.
        """
        interpreted = self._load().interpreted
        if not interpreted:
            tensors.require_gpu()
        inputs = self.signature.inputs
        held = [
            tensors.as_tensor(v, p, interpreted)
            for p, v in zip(inputs, values, strict=True) if p.kind == "array"
        ]  # fmt: skip
        tensors.check_together(held, self._arrays)
        shapes = [tuple(t.shape) for t in held]
        named_sizes(self.signature, values, shapes, self._precondition)
        remaining = iter(held)
        return [
            next(remaining) if p.kind == "array"
            else arguments.size_value(v, p) if p.kind == "size"
            else arguments.scalar_value(v, p).item()
            for p, v in zip(inputs, values, strict=True)
        ]  # fmt: skip

    def on_copies(self, *args: Any) -> Any:
        """Call it on NumPy arguments, through copies in the GPU's memory where there is one."""
        import torch

        if self._load().interpreted:
            return self(*args)
        tensors.require_gpu()
        moved = [torch.from_numpy(a).cuda() if isinstance(a, np.ndarray) else a for a in args]
        returned = self(*moved)
        for value, tensor in zip(args, moved, strict=True):
            if isinstance(value, np.ndarray):
                value[...] = tensor.cpu().numpy()
        return returned

    def _load(self) -> _Loaded:
        """Import the module, once."""
        with self._lock:
            if self._loaded is None:
                self._loaded = _load(self.module)
            return self._loaded


def _load(source: TritonSource) -> _Loaded:
    for needed in ("torch", "triton"):
        if importlib.util.find_spec(needed) is None:
            raise GpuMissing(f"Triton kernels need {needed}, which is not installed: {INSTALL}")
    folder = tempfile.TemporaryDirectory(prefix="perfkit-triton-")
    module = load_module(source, Path(folder.name))
    interpreted = any(
        type(getattr(module, k.name)).__name__ == "InterpretedFunction" for k in source.kernels
    )
    if interpreted:
        module.libdevice = emulated_libdevice()  # type: ignore[attr-defined]
    return _Loaded(getattr(module, source.entry), interpreted, folder)


def emulated_libdevice() -> SimpleNamespace:
    """CUDA's library of functions for Triton's interpreter, which lacks it, in NumPy."""
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    def emulated(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *rest: Any) -> Any:
            data = function(*(a.handle.data for a in (first, *rest)))
            handle = TensorHandle(data.astype(first.handle.data.dtype), first.handle.dtype)
            return tl.tensor(handle, first.type)

        return call

    return SimpleNamespace(**{name: emulated(f) for name, f in _EMULATED.items()})


__all__ = ["TritonKernel", "emulated_libdevice"]
