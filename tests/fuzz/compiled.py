"""Compiled code against the oracle: many kernels in one shared object."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from perfkit import config
from perfkit.codegen.interpret import run
from perfkit.codegen.openmp import Options, generate_kernel
from perfkit.codegen.target import Target
from perfkit.ir.scop import Scop
from perfkit.runtime.build import LIBRARIES, SHARED_FLAGS, Toolchain, private_directory
from perfkit.runtime.machine import Machine
from perfkit.runtime.signature import Parameter, Signature
from perfkit.schedule.state import State
from tests.fuzz.check import agree, random_arrays

SIZES = (1, 2, 5, 12)
# Optimized enough for SIMD, quick to compile, and without contraction, so that strict means equal.
FLAGS = ("-O2", "-ffp-contract=off", "-w")


@dataclass(frozen=True)
class Candidate:
    """One scheduled program, waiting to be compiled and run."""

    seed: int
    state: State

    @property
    def name(self) -> str:
        return f"k{self.seed}"

    def source(self, target: Target) -> str:
        scop = replace(self.state.scop, name=self.name)
        # The shapes serve a caller's checks only; the code takes them from the SCoP.
        parameters = [Parameter("n", "size", "int64")] + [
            Parameter(a.name, "array", a.dtype, a.rank, (1,) * a.rank, a.name in scop.written)
            for a in scop.arrays
            if not a.local
        ]
        signature = Signature(self.name, tuple(parameters), ("n",))
        return generate_kernel(
            scop, self.state.tree, signature, Options(fp=self.state.fp, target=target)
        )


def _call(library: ctypes.CDLL, name: str, n: int, arrays: list[np.ndarray]) -> int:  # type: ignore[type-arg]
    size = ctypes.c_int64(n)
    pointers = [ctypes.addressof(size), *(a.ctypes.data for a in arrays)]
    function = library[f"{name}_call"]
    function.restype = ctypes.c_int64
    return int(function((ctypes.c_void_p * len(pointers))(*pointers)))


def _compare(library: ctypes.CDLL, candidate: Candidate) -> str | None:
    scop: Scop = candidate.state.original
    for n in SIZES:
        expected = random_arrays(scop, {"n": n}, candidate.seed)
        found = {k: v.copy() for k, v in expected.items()}
        run(scop, {"n": n}, expected, {})
        code = _call(library, candidate.name, n, list(found.values()))
        if code:
            return f"the compiled code failed with {code} at n = {n}"
        for name, value in expected.items():
            if not agree(value, found[name], candidate.state.fp):
                return f"the compiled code gives another {name} at n = {n}"
    return None


def check_compiled(candidates: list[Candidate], threads: int = 2) -> dict[int, str]:
    """Compile all candidates into one shared object and run them; what failed, by seed."""
    settings = config.current()
    toolchain = Toolchain.detect(settings)
    target = Target(Machine.detect().simd_bytes or 16, threads)
    failures: dict[int, str] = {}
    folder = private_directory(settings.cache_dir / "build", "fuzz-")
    try:
        files: dict[int, str] = {}
        for candidate in candidates:
            try:
                source = candidate.source(target)
            except Exception as error:
                failures[candidate.seed] = f"the generator raised {error!r}"
                continue
            path = Path(folder) / f"{candidate.name}.c"
            path.write_text(source)
            files[candidate.seed] = str(path)
        if not files:
            return failures
        output = Path(folder) / "fuzz.so"
        flags = [f for f in toolchain.flags if not f.startswith("-O")]
        command = [toolchain.path, *SHARED_FLAGS, *flags, *FLAGS, toolchain.openmp_flag]

        def compile_all(sources: list[str]) -> str:
            done = subprocess.run(
                [*command, "-o", str(output), *sources, *LIBRARIES],
                capture_output=True, text=True, timeout=600, check=False,
            )  # fmt: skip
            return done.stderr if done.returncode else ""

        if compile_all(list(files.values())):
            for seed, file in list(files.items()):
                message = compile_all([file])
                if message:
                    failures[seed] = f"does not compile: {message[:800]}"
                    del files[seed]
            if not files:
                return failures
            compile_all(list(files.values()))
        library = ctypes.CDLL(str(output))
        for candidate in candidates:
            if candidate.seed not in failures:
                found = _compare(library, candidate)
                if found:
                    failures[candidate.seed] = found
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return failures
