"""All test programs, each in two forms: a plain Python function and a C function.

A program module defines
  the kernel        a function with the module's name: loops over NumPy arrays, runnable as it is
  SIZES             named problem sizes, TINY (odd, unequal; for tests) to EXTRALARGE
  arguments         (sizes, rng) -> the kernel's arguments by name, in call order
  OUTPUTS           arrays whose contents matter after the call: every array written that is not
                    scratch
  TEMPORARIES       scratch arrays: their contents neither matter before nor after the call
  FLOPS             (sizes) -> arithmetic operations, approximately
  TOLERANCE         largest relative difference allowed between two correct evaluations
and may define
  numpy_form        the same computation on whole arrays (NumPy, BLAS), arguments by name
  defined           (sizes) -> index, by output name, of the part that is numerically meaningful
  C_GLOBALS         arguments that the C form holds in file-scope arrays and does not take

The C parameters are all sizes in the order of SIZES, as `int`, then the Python parameters that are
neither sizes nor in C_GLOBALS, in Python's order: an array becomes a pointer to its first element,
a Python float `double`, a Python int `int`, a NumPy scalar the C type of its width. A kernel that
returns a value returns it as `double` in C.
"""

import ctypes
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

_POLYBENCH = """
2mm 3mm adi atax bicg cholesky correlation covariance deriche doitgen durbin fdtd-2d
floyd-warshall gemm gemver gesummv gramschmidt heat-3d jacobi-1d jacobi-2d lu ludcmp mvt
nussinov seidel-2d symm syr2k syrk trisolv trmm
"""
_EXTRA = """
wave-2d wave-3d lbm-d2q9 fdtd-mur heat-ring seidel-3d trsm-left-lower trsm-right-upper lcs
edit-distance matrix-chain smith-waterman blur-two-stage unsharp-mask harris sobel-clamped conv2d
depthwise-conv integral-image running-sums bit-mix batched-dense transpose-reduce frobenius
softmax-rows layer-norm krylov red-black-guard red-black-strided upsample banded-matvec
fraction-bounds backward guards smooth-global nbody horner mandelbrot blocked-gemm contraction
max-pool causal-attention upwind life thomas convolve flip jacobi-3d-linear
"""
POLYBENCH = _POLYBENCH.split()
EXTRA = _EXTRA.split()
_SUITES = {"polybench": POLYBENCH, "extra": EXTRA}
_BENCH = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Program:
    """One test program in its Python and C forms."""

    name: str
    suite: str  # "polybench" | "extra"
    function: Callable[..., Any]
    module: ModuleType
    c_path: Path
    c_function: str
    sizes: Mapping[str, Mapping[str, int]]
    outputs: tuple[str, ...]
    temporaries: tuple[str, ...]
    c_globals: tuple[str, ...]
    flops: Callable[[Mapping[str, int]], float]
    numpy_form: Callable[..., Any] | None
    tolerance: float

    @property
    def parameters(self) -> tuple[str, ...]:
        """The Python function's parameters, in order."""
        return tuple(inspect.signature(self.function).parameters)

    def arguments(self, sizes: Mapping[str, int] | str, seed: int = 0) -> dict[str, Any]:
        """Fresh arguments for a size (or the name of one), the same for the same seed."""
        if isinstance(sizes, str):
            sizes = self.sizes[sizes]
        made = self.module.arguments(sizes, np.random.default_rng(seed))
        return {name: made[name] for name in self.parameters}

    def defined(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        """Index of the numerically meaningful part of each output, where it is not all of it."""
        return self.module.defined(sizes) if hasattr(self.module, "defined") else {}


def module_name(name: str) -> str:
    """The module, function and file name of a program: an identifier (2mm -> k2mm)."""
    identifier = name.replace("-", "_")
    return "k" + identifier if identifier[0].isdigit() else identifier


def _load(suite: str, name: str) -> Program:
    identifier = module_name(name)
    module = importlib.import_module(f"bench.{suite}.programs.{identifier}")
    return Program(
        name=name,
        suite=suite,
        function=getattr(module, identifier),
        module=module,
        c_path=_BENCH / suite / "c" / f"{identifier}.c",
        c_function=identifier,
        sizes=module.SIZES,
        outputs=module.OUTPUTS,
        temporaries=module.TEMPORARIES,
        c_globals=getattr(module, "C_GLOBALS", ()),
        flops=module.FLOPS,
        numpy_form=getattr(module, "numpy_form", None),
        tolerance=module.TOLERANCE,
    )


def programs(suite: str | None = None, names: Iterable[str] | None = None) -> list[Program]:
    """The programs of one suite or of both, in listed order; `names` selects among them."""
    suites = [suite] if suite else list(_SUITES)
    listed = {name: owner for owner in suites for name in _SUITES[owner]}
    wanted = list(listed) if names is None else list(names)
    unknown = [name for name in wanted if name not in listed]
    if unknown:
        raise ValueError(f"no such program: {', '.join(unknown)}")
    return [_load(listed[name], name) for name in listed if name in wanted]


_SCALARS: dict[type, Any] = {
    float: ctypes.c_double,
    int: ctypes.c_int,
    np.float64: ctypes.c_double,
    np.float32: ctypes.c_float,
    np.int64: ctypes.c_int64,
    np.int32: ctypes.c_int32,
}


def c_arguments(
    program: Program, sizes: Mapping[str, int], arguments: Mapping[str, Any]
) -> list[Any]:
    """The ctypes arguments of the C function; the arrays must outlive the call."""
    converted: list[Any] = [
        ctypes.c_int(sizes[name]) for name in next(iter(program.sizes.values()))
    ]
    for name in program.parameters:
        value = arguments[name]
        if name in sizes or name in program.c_globals:
            continue
        if isinstance(value, np.ndarray):
            if not value.flags.c_contiguous:
                raise ValueError(f"{program.name}: array {name} is not C-contiguous")
            converted.append(ctypes.c_void_p(value.ctypes.data))
        else:
            converted.append(_SCALARS[type(value)](value))
    return converted
