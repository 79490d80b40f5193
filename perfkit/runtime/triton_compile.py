"""Compiling generated Triton modules for a GPU that need not be there, and what they would use.

Triton compiles to a cubin without a driver; the wheel carries ``ptxas`` and ``cuobjdump``. Imports
triton, which is optional, when called.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from perfkit.errors import BuildError
from perfkit.runtime.tensors import HALF
from perfkit.runtime.triton_module import KernelSpec, TritonSource

_TYPES = {
    "float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "bool": "i1",
    "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64",
    "uint8": "u8", "uint16": "u16", "uint32": "u32", "uint64": "u64",
}  # fmt: skip
_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)")


@dataclass(frozen=True, slots=True)
class Compiled:
    """One kernel: 32-bit registers per thread, bytes of stack per thread, bytes of shared memory.

    ``stack`` is where spilled registers go; ``spills`` counts the store and load instructions on
    it. ``wgmma`` and ``mma`` count tensor-core instructions, ``fma`` the scalar fused ones.
    """

    name: str
    registers: int
    stack: int
    spills: int
    shared: int
    wgmma: int
    mma: int
    fma: int


def load_module(source: TritonSource, folder: Path) -> ModuleType:
    """Write a module into ``folder`` and import it; Triton reads kernels from files."""
    path = folder / f"{source.entry}.py"
    path.write_text(source.text)
    spec = importlib.util.spec_from_file_location(f"perfkit_triton_{source.entry}", path)
    if spec is None or spec.loader is None:
        raise BuildError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compile_kernels(
    source: TritonSource, capability: int = 90, storage: Mapping[str, str] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> tuple[Compiled, ...]:  # fmt: skip
    """Compile every kernel of a module for ``sm_<capability>``.

    ``storage`` maps element types of the program to those that arrays have in memory, such as
    ``{"float32": "bfloat16"}``. As Triton specialises calls, pointers are taken as aligned to 16
    bytes, and those of ``sizes`` that are multiples of 16 as such; sizes are 32-bit integers.
    """
    even = frozenset(n for n, value in (sizes or {}).items() if value % 16 == 0)
    with tempfile.TemporaryDirectory() as folder:
        module = load_module(source, Path(folder))
        return tuple(_compile(module, k, capability, storage or {}, even) for k in source.kernels)


def _compile(
    module: ModuleType, spec: KernelSpec, capability: int, storage: Mapping[str, str],
    even: frozenset[str],
) -> Compiled:  # fmt: skip
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature: dict[str, str] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    function = getattr(module, spec.name)
    names = function.arg_names
    for k, argument in enumerate(spec.arguments):
        dtype = _TYPES[argument.dtype]
        if argument.kind == "array":
            dtype = f"*{_TYPES[storage.get(argument.dtype, argument.dtype)]}"
        elif argument.kind == "size":
            dtype = "i32"
        signature[names[k]] = dtype
        if argument.kind == "array" or argument.name in even:
            attributes[(k,)] = [["tt.divisibility", 16]]
    signature["INDEX"] = "constexpr"
    half = spec.half_of and storage.get("float32") in HALF
    compiled = triton.compile(
        ASTSource(
            fn=function, signature=signature, constexprs={(len(spec.arguments),): tl.int32},
            attrs=attributes,
        ),
        target=GPUTarget("cuda", capability, 32),
        options={
            "num_warps": spec.warps, "num_stages": spec.half_stages if half else spec.stages,
            "enable_fp_fusion": spec.fp_fusion,
        },
    )  # fmt: skip
    return _report(spec.name, compiled.asm["cubin"], compiled.metadata.shared)


def _report(name: str, cubin: bytes, shared: int) -> Compiled:
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _tool(knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name)
        sass = _tool(knobs.nvidia.cuobjdump.path, "--dump-sass", file.name)
    found = _RESOURCES.search(usage)
    if found is None:
        raise BuildError(f"{name}: cuobjdump reports no resources: {usage[:200]}")
    counts = _count(sass, ("STL", "LDL", "HGMMA", "HMMA", "DMMA", "FFMA", "DFMA"))
    return Compiled(
        name=name,
        registers=int(found[1]),
        stack=int(found[2]),
        spills=counts["STL"] + counts["LDL"],
        shared=shared,
        wgmma=counts["HGMMA"],
        mma=counts["HMMA"] + counts["DMMA"],
        fma=counts["FFMA"] + counts["DFMA"],
    )


def _count(sass: str, names: Iterable[str]) -> dict[str, int]:
    return {n: len(re.findall(rf"\b{n}\b", sass)) for n in names}


def _tool(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise BuildError(f"{command[0]} failed: {done.stderr[:500]}")
    return done.stdout


__all__ = ["Compiled", "compile_kernels", "load_module"]
