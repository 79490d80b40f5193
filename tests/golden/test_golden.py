"""The generated C of a blocked gemm, a wavefronted jacobi-2d and a triangular cholesky."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from bench.polybench.registry import programs
from perfkit.analysis.dependences import Analysis
from perfkit.codegen.openmp import Options, generate_kernel
from perfkit.codegen.target import Target
from perfkit.frontends.python import from_function
from perfkit.schedule import script
from perfkit.schedule.state import State

HERE = Path(__file__).parent
NAMES = ("gemm", "jacobi-2d", "cholesky")


@pytest.mark.parametrize("name", NAMES)
def test_generated_text(name: str, request: pytest.FixtureRequest) -> None:
    (program,) = programs(names=[name])
    scop, signature = from_function(program.function, **program.arguments("TINY"))
    steps = (HERE / f"{name}.script").read_text()
    state = script.replay(State.start(scop), steps, Analysis(parallel_reductions=True))
    options = Options(state.fp, Target(simd_bytes=32, threads=2))
    text = generate_kernel(state.scop, state.tree, signature, options)
    path = HERE / f"{name}.c"
    if request.config.getoption("--update-golden"):
        path.write_text(text)
    expected = path.read_text()
    change = difflib.unified_diff(
        expected.splitlines(), text.splitlines(), path.name, "generated now", lineterm=""
    )
    assert text == expected, "\n".join(change)
