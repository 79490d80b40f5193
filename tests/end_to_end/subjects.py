"""One program from one frontend: its SCoP, the C file of a schedule, and how to call it."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bench.polybench.registry import Program, c_arguments
from perfkit.codegen import interpret
from perfkit.codegen.openmp import Options, generate_kernel, generate_region
from perfkit.codegen.rewrite import ON_FAILURE, Replacement, rewrite
from perfkit.codegen.target import Target
from perfkit.frontends.c import CFile, parse_file
from perfkit.frontends.python import from_function
from perfkit.ir.isl import Polyhedra
from perfkit.ir.scop import Scop
from perfkit.ir.tree import Node
from perfkit.runtime.kernel import Kernel
from perfkit.runtime.signature import Signature
from perfkit.schedule.state import State

FRONTENDS = ("python", "c")
THREADS = 3
"""More than the loops of tiny programs share evenly."""


class Subject(Protocol):
    """A program as one frontend reads it."""

    program: Program
    frontend: str
    scop: Scop

    @property
    def returns(self) -> bool:
        """Whether the function returns a number."""
        ...

    def source(self, label: str, state: State, poly: Polyhedra, simd_bytes: int) -> str:
        """A C file with the function ``label`` that runs the schedule."""
        ...

    def hollow(self, source: str) -> str:
        """The file without the original loops: where generated code gives up, nothing runs."""
        ...

    def reference(self) -> str | None:
        """A C file with the function ``reference``, where the original is C."""
        ...

    def run(
        self, library: Path, label: str, sizes: Mapping[str, int], arguments: dict[str, Any]
    ) -> Any:
        """Call a compiled variant; arrays change in place, the returned value is returned."""
        ...

    def interpret(
        self, sizes: Mapping[str, int], arguments: dict[str, Any], scop: Scop, tree: Node | None
    ) -> bool:
        """Run ``scop`` in the order of ``tree`` in the interpreter, on the same arguments.

        False where that cannot be done.
        """
        ...

    def compared(self, arguments: Mapping[str, Any]) -> list[str]:
        """The arrays that the caller of the compiled code sees."""
        ...


@dataclass(frozen=True)
class PythonSubject:
    """A Python function: variants are whole kernels."""

    program: Program
    scop: Scop
    signature: Signature
    frontend: str = "python"

    @staticmethod
    def of(program: Program) -> PythonSubject:
        return PythonSubject(program, *from_function(program.function, **program.arguments("TINY")))

    @property
    def returns(self) -> bool:
        return any(p.kind == "result" for p in self.signature.parameters)

    def source(self, label: str, state: State, poly: Polyhedra, simd_bytes: int) -> str:
        options = Options(state.fp, Target(simd_bytes, THREADS))
        signature = replace(self.signature, name=label)
        return generate_kernel(state.scop, state.tree, signature, options, poly)

    def hollow(self, source: str) -> str:
        return source

    def reference(self) -> str | None:
        return None

    def run(
        self, library: Path, label: str, sizes: Mapping[str, int], arguments: dict[str, Any]
    ) -> Any:
        return Kernel(replace(self.signature, name=label), library, "")(**arguments)

    def interpret(
        self, sizes: Mapping[str, int], arguments: dict[str, Any], scop: Scop, tree: Node | None
    ) -> bool:
        interpret.call(scop, self.signature, arguments, tree)
        return True

    def compared(self, arguments: Mapping[str, Any]) -> list[str]:
        return [n for n, v in arguments.items() if isinstance(v, np.ndarray)]


@dataclass(frozen=True)
class CSubject:
    """A C file: variants are the file with its region replaced, the function renamed."""

    program: Program
    scop: Scop
    file: CFile
    frontend: str = "c"

    @staticmethod
    def of(program: Program) -> CSubject:
        file = parse_file(program.c_path)
        (region,) = file.regions
        if region.scop is None:
            raise AssertionError(f"{program.c_path.name} is refused: {region.error}")
        return CSubject(program, region.scop, file)

    @property
    def returns(self) -> bool:
        return re.search(rf"^double {self.program.c_function}\(", self.file.text, re.M) is not None

    def source(self, label: str, state: State, poly: Polyhedra, simd_bytes: int) -> str:
        options = Options(state.fp, Target(simd_bytes, THREADS))
        made = generate_region(
            state.scop, state.tree, options, poly, on_failure=ON_FAILURE
        )  # fmt: skip
        (region,) = self.file.regions
        replacement = Replacement(region, state.scop, made.prelude, made.body, "")
        return self._renamed(label, rewrite(self.file, [replacement]))

    def hollow(self, source: str) -> str:
        (region,) = self.file.regions
        loops = self.file.text.split("\n")[region.first_line : region.last_line - 1]
        return source.replace("\n".join(loops), "\n" * (len(loops) - 1))

    def _renamed(self, label: str, text: str) -> str:
        return f"#define {self.program.c_function} {label}\n{text}"

    def reference(self) -> str | None:
        return self._renamed("reference", self.file.text)

    def run(
        self, library: Path, label: str, sizes: Mapping[str, int], arguments: dict[str, Any]
    ) -> Any:
        function = ctypes.CDLL(str(library))[label]
        function.restype = ctypes.c_double if self.returns else None
        return function(*c_arguments(self.program, sizes, arguments))

    def interpret(
        self, sizes: Mapping[str, int], arguments: dict[str, Any], scop: Scop, tree: Node | None
    ) -> bool:
        known: dict[str, Any] = {**sizes, **arguments}
        values = {p: int(known[p]) for p in scop.parameters}
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for array in scop.arrays:
            shape = tuple(e.evaluate(values) for e in array.shape)
            given = arguments.get(array.name)
            if array.local:
                continue
            if given is None:
                arrays[array.name] = np.zeros(shape, array.dtype)  # a variable of the function
            else:
                arrays[array.name] = _shaped(given, shape)
        scalars = {s.name: known[s.name] for s in scop.scalars if s.name in known}
        if len(scalars) == len(scop.scalars):  # else the function computes some before the region
            interpret.run(scop, values, arrays, scalars, tree)
            return True
        return False

    def compared(self, arguments: Mapping[str, Any]) -> list[str]:
        hidden = set(self.program.c_globals)
        return [n for n, v in arguments.items() if isinstance(v, np.ndarray) and n not in hidden]


def _shaped(given: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """``given`` as the C function sees it; a file-scope array has room for more than is used."""
    count = int(np.prod(shape))
    if given.size >= count:
        return given.reshape(-1)[:count].reshape(shape)
    whole = np.zeros(shape, given.dtype)
    whole[tuple(slice(extent) for extent in given.shape)] = given
    return whole


def subject(program: Program, frontend: str) -> Subject:
    return PythonSubject.of(program) if frontend == "python" else CSubject.of(program)
