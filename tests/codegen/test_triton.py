"""Triton text without Triton: structure of kernels, barriers and their proof, refusals."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest

from perfkit.analysis.dependences import Analysis
from perfkit.codegen.ast import lower
from perfkit.codegen.triton import generate_module
from perfkit.codegen.triton_exchange import prove, separate
from perfkit.codegen.triton_nodes import Barrier, Node, Repeat, convert, walk
from perfkit.codegen.triton_space import Space
from perfkit.errors import IllegalSchedule, TransformError
from perfkit.ir.isl import Polyhedra
from perfkit.ir.tree import Mark, loops, map_loops
from perfkit.runtime.triton_module import TritonSource
from perfkit.schedule.gpu_mapping import map_to_gpu, plans
from perfkit.schedule.launches import launches, plan
from perfkit.schedule.state import State
from tests.codegen.harness import scheduled, signature
from tests.programs_ir import parse_scop
from tests.schedule.test_gpu import MATMUL, PREFIX

EXCHANGE = """
params n
context n >= 1
array x[n] float64
array y[n] float64
S0[i, j]: 0 <= i < n and 0 <= j < n: x[j] = x[j] + 1.0
S1[i, j]: 0 <= i < n and 0 <= j < n: y[j] = x[n - 1 - j]
tree
for i(S0: i, S1: i) {
  for j(S0: j) S0;
  for j_2(S1: j) S1
}
"""
TRIANGLE = """
params n
context n >= 1
array A[n, n] float64
S0[i, j]: 0 <= i < n and 0 <= j <= i: A[i, j] = A[i, j] * 2.0
tree
for i(S0: i)
  for j(S0: j)
    S0
"""
TILED = "MapGrid(i, j); MapBlock(i, 64); MapBlock(j, 64)"


def source(text: str, steps: str, fp: str = "strict") -> TritonSource:
    state = scheduled(text, steps, fp)
    made = generate_module(state, signature(state.original, "kernel"), Analysis())
    ast.parse(made.text)
    return made


def program(state: State) -> tuple[Space, tuple[Node, ...]]:
    """The loops of the only kernel, without tiles and barriers."""
    deps = Analysis().dependences(state.scop, state.fp)
    (launch,) = launches(plan(state.tree))
    space = Space(deps.polyhedra, deps, state.tree, launch)
    scop, tree = space.program()
    return space, convert(lower(Polyhedra(scop), scop, tree))


def without_barriers(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    kept = [n for n in nodes if not isinstance(n, Barrier)]
    return tuple(
        replace(n, body=without_barriers(n.body)) if isinstance(n, Repeat) else n for n in kept
    )


def test_products_accumulate_in_a_tile() -> None:
    text = source(MATMUL, TILED + "; MapBlock(k, 16)", "reassociate").text
    assert 'tl.dot(A_1, B_1, C_tile1, input_precision="ieee")' in text
    assert text.count("tl.store(") == 1
    assert "tl.debug_barrier" not in text


TWO = MATMUL.replace("array B[p, m]", "array D[n, p] float64\narray E[p, m] float64\narray B[p, m]")
PAIR = "A[i, k] * B[k, j] + D[i, k] * E[k, j]"


def test_sums_of_products_accumulate_in_one_tile() -> None:
    text = TWO.replace("C[i, j] + A[i, k] * B[k, j]", f"C[i, j] + ({PAIR})")
    made = source(text, TILED + "; MapBlock(k, 16)", "reassociate").text
    assert made.count("C_tile1 = tl.dot(") == 2
    start = State.start(parse_scop(text), "reassociate")
    assert any(x.name == "k" and x.mark("block") for x in loops(map_to_gpu(start).state.tree))


@pytest.mark.parametrize("pair", [PAIR.replace("+", "-"), PAIR.replace("+ D", "+ A[i, j] * D")])
def test_products_that_are_not_scaled_alike_are_no_single_product(pair: str) -> None:
    text = TWO.replace("C[i, j] + A[i, k] * B[k, j]", f"C[i, j] + ({pair})")
    assert "tl.dot(" not in source(text, TILED + "; MapBlock(k, 16)", "reassociate").text
    state = State.start(parse_scop(text), "reassociate")
    tiles = (p.tree for p in plans(state, Analysis()) if ":tile-" in p.name)
    assert not any(x.name == "k" and x.mark("block") for tree in tiles for x in loops(tree))


def test_strict_sums_keep_their_order_and_are_not_fused() -> None:
    made = source(MATMUL, TILED)
    assert "tl.dot" not in made.text and "for k in range(0, p)" in made.text
    assert not made.kernels[0].fp_fusion
    assert "enable_fp_fusion=False" in made.text


def test_products_run_in_groups_of_rows() -> None:
    text = source(MATMUL, TILED + "; MapBlock(k, 16)", "reassociate").text
    assert "group_rows = tl.minimum(i_b_count - 8 * group, 8)" in text
    assert "group" not in source(MATMUL, TILED).text


def test_recurrences_scan_from_block_to_block() -> None:
    text = source(PREFIX, "MapBlock(i, 64)", "reassociate").text
    assert "x_scan1 = tl.associative_scan(x_scan1, 0, combine_add)" in text
    assert "def combine_add(a, b):" in text and "combine_max" not in text
    assert "i_first" in text and "(i == 64 * i_b)" in text
    loop = text.partition("for i_b in")[2].partition("def kernel(")[0]
    assert loop.rstrip().endswith("tl.debug_barrier()")  # the next block reads what this one wrote


def test_launchers_refuse_what_kernels_would_misread() -> None:
    text = source(MATMUL, TILED).text
    assert 'expect("A", A, torch.float64, (n, p))' in text
    assert "if not ((n >= 1) and (m >= 1) and (p >= 1)):" in text


def test_triangles_are_masked() -> None:
    text = source(TRIANGLE, TILED).text
    assert "(j <= i)" in text and "(i < n)" in text
    assert "if (" in text  # programs above the diagonal do nothing


def test_loops_around_a_grid_run_on_the_host() -> None:
    made = source(EXCHANGE, "MapGrid(j); MapGrid(j_2); MapBlock(j, 32)")
    assert len(made.kernels) == 2
    assert "for i in range(0, n):" in made.text.partition("def kernel(")[2]


def test_exchanges_inside_a_program_get_barriers() -> None:
    state = scheduled(EXCHANGE, "MapBlock(j, 32); MapBlock(j_2, 32)")
    assert "tl.debug_barrier()" in source(EXCHANGE, "MapBlock(j, 32); MapBlock(j_2, 32)").text
    space, nodes = program(state)
    safe = separate(space, space.deps, nodes)
    assert sum(isinstance(n, Barrier) for n in walk(safe)) == 2  # between, and around the loop
    prove(space, space.deps, safe)


def test_an_exchange_without_a_barrier_is_refused() -> None:
    state = scheduled(EXCHANGE, "MapBlock(j, 32); MapBlock(j_2, 32)")
    space, nodes = program(state)
    safe = separate(space, space.deps, nodes)
    with pytest.raises(IllegalSchedule, match="without a barrier"):
        prove(space, space.deps, without_barriers(safe))
    (outer,) = safe
    assert isinstance(outer, Repeat) and isinstance(outer.body[-1], Barrier)
    around = (replace(outer, body=outer.body[:-1]),)  # only the one around the loop is missing
    with pytest.raises(IllegalSchedule, match="without a barrier"):
        prove(space, space.deps, around)


def test_a_recurrence_over_the_grid_is_refused_whoever_marked_it() -> None:
    state = State.start(parse_scop(PREFIX))
    marked = map_loops(state.tree, lambda loop: replace(loop, marks=(Mark("grid"),)))
    with pytest.raises(IllegalSchedule, match="grid loop i"):
        generate_module(state.with_tree(marked), signature(state.scop, "kernel"))


def test_grids_that_are_not_nested_directly_are_refused() -> None:
    text = EXCHANGE.replace("x[n - 1 - j]", "x[j]").replace("x[j] + 1.0", "1.0")
    text = text.replace("array y[n]", "array y[n, n]").replace("array x[n]", "array x[n, n]")
    text = text.replace("x[j]", "x[i, j]").replace("y[j]", "y[i, j]")
    with pytest.raises(TransformError, match="not nested directly"):
        source(text, "MapGrid(i); MapGrid(j)")


HALVES = """
params n
context n >= 2
array x[n] float64
array z[n] float64
S0[i]: 0 <= i < n: z[i // 2] = z[i // 2] + x[i]
tree
for i(S0: i)
  S0
"""


def test_lanes_that_add_to_several_elements_each_are_refused() -> None:
    with pytest.raises(TransformError, match="adds several lanes of i to one element"):
        source(HALVES, "MapBlock(i, 16)", "reassociate")
    state = State.start(parse_scop(HALVES), "reassociate")
    assert not any(loop.marks for loop in loops(map_to_gpu(state).state.tree))
