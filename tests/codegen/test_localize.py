"""Temporaries: variables where one iteration uses them, memory where several share them."""

from __future__ import annotations

from pathlib import Path

from tests.codegen.harness import assert_same, scheduled
from tests.programs_ir import PRODUCER_CONSUMER

SCALAR = """
params n
context n >= 1
array A[n] float64
array B[n] float64
array t float64 local
S0[i]: 0 <= i < n: t = A[i] * 2.0
S1[i]: 0 <= i < n: B[i] = t + A[i]
tree
for i(S0: i, S1: i) { S0; S1 }
"""
MATRIX = """
params n m
context n >= 1 and m >= 1
array A[n, m] float64
array B[n] float64
array t float64 local
S0[i]: 0 <= i < n: t = 0.0
S1[i, j]: 0 <= i < n and 0 <= j < m: t = t + A[i, j]
S2[i]: 0 <= i < n: B[i] = t * 0.5
tree
for i(S0: i, S1: i, S2: i) { S0; for j(S1: j) S1; S2 }
"""
SIZES = ({"n": 1}, {"n": 13}, {"n": 64})
WIDE = ({"n": 1, "m": 1}, {"n": 7, "m": 12}, {"n": 9, "m": 3})


def test_an_expanded_scalar_becomes_a_variable_again(tmp_path: Path) -> None:
    state = scheduled(SCALAR, "Expand(t)\nParallelize(i)")
    source = assert_same(tmp_path, state, *SIZES)
    assert "perfkit_take" not in source and "double t_1 = 0;" in source


def test_lanes_get_a_vector_of_it(tmp_path: Path) -> None:
    source = assert_same(tmp_path, scheduled(SCALAR, "Expand(t)\nVectorize(i, 4)"), *SIZES)
    assert "f64x4 t_" in source and "perfkit_take" not in source


def test_copies_get_one_each(tmp_path: Path) -> None:
    source = assert_same(tmp_path, scheduled(MATRIX, "Expand(t)\nJam(i, 3)"), *WIDE)
    assert "perfkit_take" not in source and "t_3" in source


def test_a_sum_over_lanes_into_such_a_variable(tmp_path: Path) -> None:
    """The partial sums are combined into the variable, not into an element."""
    state = scheduled(MATRIX, "Expand(t)\nVectorize(j, 8)", "reassociate")
    source = assert_same(tmp_path, state, *WIDE, rtol=1e-12)
    assert "perfkit_take" not in source


def test_a_sum_over_threads_into_such_a_variable(tmp_path: Path) -> None:
    state = scheduled(MATRIX, "Expand(t)\nVectorize(j, 4)\nParallelize(j)", "reassociate")
    assert_same(tmp_path, state, *WIDE, rtol=1e-12)


def test_what_outlives_an_iteration_stays_in_memory(tmp_path: Path) -> None:
    text = PRODUCER_CONSUMER.replace("array B[n] float64", "array B[n] float64 local")
    source = assert_same(tmp_path, scheduled(text, "Parallelize(i)"), {"n": 1}, {"n": 20})
    assert "perfkit_take" in source and "perfkit_give" in source


def test_distributed_loops_need_the_whole_array(tmp_path: Path) -> None:
    state = scheduled(SCALAR, "Expand(t)\nDistribute(i)\nParallelize(i)")
    source = assert_same(tmp_path, state, *SIZES)
    assert "perfkit_take" in source


def test_new_names_differ_from_those_of_the_program(tmp_path: Path) -> None:
    """t_1 is an array, i_p the size: neither may be hidden by a variable of the generator."""
    text = """
params i_p
context i_p >= 1
array t_1[i_p] float64
array t_t1[i_p] float64
array t_all1[i_p] float64
array t float64
S0[i, j]: 0 <= i < i_p and 0 <= j <= i: t = t + t_1[j] * t_t1[j] * t_all1[j]
S1[i]: 0 <= i < i_p: t_1[i] = t_1[i] + t
tree
for i(S0: i, S1: i) { for j(S0: j) S0; S1 }
"""
    for steps in ("", "Vectorize(j, 4)", "Parallelize(j)", "Vectorize(j, 4)\nParallelize(j)"):
        state = scheduled(text, steps, "reassociate")
        assert_same(tmp_path, state, {"i_p": 1}, {"i_p": 13}, rtol=1e-12)


def test_an_element_that_goes_by_two_names_stays_in_memory(tmp_path: Path) -> None:
    """Where i == k holds, isl writes one for the other: t[i] and t[k] are the same variable."""
    text = """
params n
context n >= 1
array A[n] float64
array B[n, n] float64
array D[n] float64
S0[k, i, j]: 0 <= k < n and 0 <= i < n and i <= j < n: B[i, j] = B[i, j] * 0.5 + A[k]
S1[k, i]: 0 <= k < n and 0 <= i < n and i = k: D[i] = A[k] * 0.25
tree
for k(S0: k, S1: k) for i(S0: i, S1: i) { for j(S0: j) S0; S1 }
"""
    steps = 'Pack(S0, "A[k]", i)\nEmbed(S1, j, at=first)\nTile(j=4)\nPack(S1, "A[k]", i)'
    assert_same(tmp_path, scheduled(text, steps), {"n": 1}, {"n": 5}, {"n": 9})


def test_jammed_copies_do_not_share_a_buffer(tmp_path: Path) -> None:
    """Each tile of rows packs its own part: jammed tiles would overwrite one another's."""
    text = """
params n
context n >= 1
array A[n, n] float64
array B[n, n] float64
S0[i, j]: 0 <= i < n and 0 <= j < n: B[i, j] = A[i, j] * 0.5
tree
for i(S0: i) for j(S0: j) S0
"""
    steps = 'Tile(i=2, j=4)\nPack(S0, "A[i, j]", j_t)\nJam(i_t, 3)'
    assert_same(tmp_path, scheduled(text, steps), {"n": 1}, {"n": 13}, {"n": 24})


def test_a_buffer_of_a_loop_that_isl_leaves_out_stays_in_memory(tmp_path: Path) -> None:
    """The tile loop has one iteration here, and no body to declare the buffer in."""
    text = """
params n m
context n >= 1 and m >= 3*n + 8
array C[m] float64
S0[i0]: 1 <= i0 < n: C[i0] = C[i0] - 0.125 * C[2*i0 + 1]
S1[i1]: 0 <= i1 < n: C[i1 + 1] = max(C[i1 + 1], 0.5)
tree
{ for i0(S0: i0) S0; for i1(S1: i1) S1 }
"""
    steps = """
Relayout(C, (0,), "C[i0]")
StripMine(x0, 2)
StripMine(x0_t, 2)
Tile(x0_t=5)
Fuse(x0_t_t, i0)
Pack(copy_C, "C[x0]", x0_t_t, (0,), factors=True, panel=2)
Pack(C_pack_copy, "C[x0]", C_pack_copy_x0_p)
"""
    assert_same(tmp_path, scheduled(text, steps), {"n": 1, "m": 11}, {"n": 23, "m": 80})
