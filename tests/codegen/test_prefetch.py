"""Register tiles ask for the results of the next tile, and nothing else does."""

from __future__ import annotations

import re

import pytest

from bench.polybench.registry import programs
from perfkit.analysis.dependences import Analysis
from perfkit.codegen.openmp import Options, generate_kernel
from perfkit.codegen.target import Target
from perfkit.frontends.python import from_function
from perfkit.schedule import script
from perfkit.schedule.state import State

ORDER = """
Order(\"\"\"
{
  for i(S0: i) for j(S0: j) S0;
  for i_2(S1: i) for j_2(S1: j) for k(S1: k) S1
}
\"\"\")
"""


def source(name: str, steps: str) -> str:
    (program,) = programs(names=[name])
    scop, signature = from_function(program.function, **program.arguments("TINY"))
    state = script.replay(State.start(scop), steps, Analysis())
    options = Options(state.fp, Target(simd_bytes=32, threads=2))
    return generate_kernel(state.scop, state.tree, signature, options)


def calls(text: str) -> list[str]:
    return re.findall(r"^ +perfkit_ahead\((.*)\);", text, re.MULTILINE)


def test_the_rows_of_the_next_tile_are_asked_for() -> None:
    text = source("gemm", ORDER + "Vectorize(j_2, 8)\nJam(i_2, 6)")
    assert calls(text) == [
        "&C[i_2][j_2], &C[i_2 + 1][j_2], 6, 12",
        "&C[i_2][j_2 + 4], &C[i_2 + 1][j_2 + 4], 6, 12",
    ]
    assert text.index("perfkit_ahead(&C") < text.index("for (int64_t k = ")


@pytest.mark.parametrize(
    "marks",
    [
        "Vectorize(j_2, 8)",  # one row
        "Vectorize(j_2, 4)\nJam(i_2, 2)",  # ends too soon
        "Jam(i_2, 6)",  # scalars
    ],
)
def test_other_loops_ask_for_nothing(marks: str) -> None:
    assert "perfkit_ahead" not in source("gemm", ORDER + marks)
