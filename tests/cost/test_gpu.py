"""The model of Triton kernels: counts where they are known, and orders that must not change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfkit.analysis.dependences import Analysis
from perfkit.cost.device import Gpu
from perfkit.cost.gpu import GpuEstimate, estimate_gpu
from perfkit.ir.tree import loops, parse
from perfkit.schedule.state import State
from perfkit.search.gpu import choose_gpu
from tests.codegen.harness import scheduled, signature
from tests.programs_ir import parse_scop
from tests.schedule.test_gpu import MATMUL

GPU = Gpu()
COPY = """
params n m
context n >= 1 and m >= 1
array A[n, m] float64
array B[n, m] float64
S0[i, j]: 0 <= i < n and 0 <= j < m: A[i, j] = B[i, j] + 1.0
tree
for i(S0: i) for j(S0: j) S0
"""


def cost(
    text: str, steps: str, sizes: dict[str, int], fp: str = "strict", gpu: Gpu = GPU
) -> GpuEstimate:
    state = scheduled(text, steps, fp)
    poly = Analysis().polyhedra(state.scop)
    return estimate_gpu(poly, state.scop, state.tree, sizes, gpu)


def matmul(steps: str, n: int = 2048, gpu: Gpu = GPU) -> GpuEstimate:
    return cost(MATMUL, steps, {"n": n, "m": n, "p": n}, "reassociate", gpu)


def test_launches_programs_and_warps_are_counted() -> None:
    steps = "MapGrid(j); MapBlock(j, 64)"
    (launch,) = cost(COPY, steps, {"n": 10, "m": 1000}).launches
    assert (launch.count, launch.programs, launch.warps) == (10, 16, 1)
    steps = "MapGrid(i, j); MapBlock(j, 64); Warps(i, 4)"
    (launch,) = cost(COPY, steps, {"n": 10, "m": 1000}).launches
    assert (launch.count, launch.programs, launch.warps) == (1, 160, 4)


def test_streams_are_bound_by_memory_at_its_rate() -> None:
    n = 20_000
    found = cost(COPY, "MapGrid(i, j); MapBlock(i, 16); MapBlock(j, 64)", {"n": n, "m": n})
    assert found.launches[0].bound == "memory"
    least = 2 * 8 * n * n / GPU.memory_rate
    assert least <= found.seconds <= 1.5 * least


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("MapGrid(i, j); MapBlock(i, 64); MapBlock(j, 64); MapBlock(k, 16)",
         "MapGrid(i, j); MapBlock(i, 64); MapBlock(j, 64)"),
        ("MapGrid(i, j); MapBlock(i, 64); MapBlock(j, 64); MapBlock(k, 16)",
         "MapGrid(i, j); MapBlock(j, 64)"),
        ("MapGrid(i, j); MapBlock(i, 64); MapBlock(j, 64)", "MapGrid(j); MapBlock(j, 64)"),
        ("MapGrid(j); MapBlock(j, 64)", "MapBlock(j, 64)"),
    ],
)  # fmt: skip
def test_orders_that_no_gpu_would_change(better: str, worse: str) -> None:
    assert matmul(better).seconds < matmul(worse).seconds


def test_tiles_beyond_the_registers_cost() -> None:
    small = matmul("MapGrid(i, j); MapBlock(i, 64); MapBlock(j, 64); MapBlock(k, 16)")
    large = matmul("MapGrid(i, j); MapBlock(i, 256); MapBlock(j, 256); MapBlock(k, 16)")
    assert small.seconds < large.seconds


def test_rows_are_walked_along_lanes() -> None:
    sizes = {"n": 4000, "m": 4000}
    along = cost(COPY, "MapGrid(i, j); MapBlock(j, 256)", sizes)
    across = cost(COPY, "MapGrid(i, j); MapBlock(i, 256)", sizes)
    assert along.seconds < across.seconds


def test_it_is_deterministic_and_grows_with_the_sizes() -> None:
    steps = "MapGrid(i, j); MapBlock(i, 64); MapBlock(j, 64); MapBlock(k, 16)"
    assert matmul(steps) == matmul(steps)
    assert matmul(steps, 512).seconds < matmul(steps, 1024).seconds < matmul(steps, 4096).seconds


def test_half_precision_asks_for_tiles_that_wgmma_takes() -> None:
    text = MATMUL.replace("float64", "float32")
    sizes = {"n": 4096, "m": 4096, "p": 4096}
    state = State.start(parse_scop(text), "reassociate")
    entry = signature(state.scop, "kernel")
    choice = choose_gpu(state, entry, Analysis(), "auto", sizes, Gpu.half())
    block = loops(choice.seed.state.tree)[0].mark("block")
    assert block is not None and block.factor >= 64
    steps = "MapGrid(i, j); MapBlock(i, {}); MapBlock(j, 128); MapBlock(k, 32)"
    slow = matmul(steps.format(32), gpu=replace(Gpu.half(), matrix64=1e12))
    assert slow.seconds > matmul(steps.format(64), gpu=Gpu.half()).seconds


def test_marks_are_not_needed() -> None:
    state = State.start(parse_scop(COPY))
    poly = Analysis().polyhedra(state.scop)
    tree = parse("for i(S0: i) for j(S0: j) S0")
    alone = estimate_gpu(poly, state.scop, tree, {"n": 100, "m": 100}, GPU)
    assert [c.programs for c in alone.launches] == [1]


STENCIL = """
params n
context n >= 3
array A[n, n] float64
array B[n, n] float64
S0[i, j]: 1 <= i < n - 1 and 1 <= j < n - 1: \
    B[i, j] = A[i - 1, j] + A[i, j - 1] + A[i, j] + A[i, j + 1] + A[i + 1, j]
tree
for i(S0: i) for j(S0: j) S0
""".replace("\\\n", "")


def test_tiles_of_a_stencil_share_what_they_read() -> None:
    sizes = {"n": 20_000}
    tile = cost(STENCIL, "MapGrid(i, j); MapBlock(i, 16); MapBlock(j, 64); Warps(i, 4)", sizes)
    line = cost(STENCIL, "MapGrid(i, j); MapBlock(j, 64); Warps(i, 1)", sizes)
    assert tile.device < line.device


def test_operands_that_shared_memory_cannot_hold_are_never_chosen() -> None:
    steps = "MapGrid(i, j); MapBlock(i, 128); MapBlock(j, 128); MapBlock(k, {})"
    assert matmul(steps.format(256)).seconds > 1000 * matmul(steps.format(16)).seconds


def test_half_precision_moves_half_the_bytes() -> None:
    text = COPY.replace("float64", "float32")
    steps, sizes = "MapGrid(i, j); MapBlock(i, 16); MapBlock(j, 64)", {"n": 20_000, "m": 20_000}
    single = cost(text, steps, sizes).seconds
    assert cost(text, steps, sizes, gpu=Gpu.half()).seconds == pytest.approx(single / 2, rel=0.1)


def test_lanes_are_combined_once_for_a_sum() -> None:
    sizes = {"n": 64, "m": 64, "p": 1_000_000}
    lanes = cost(MATMUL, "MapGrid(i, j); MapBlock(k, 1024)", sizes, "reassociate")
    alone = cost(MATMUL, "MapGrid(i, j)", sizes)
    assert lanes.seconds < alone.seconds / 10
