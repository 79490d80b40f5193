"""Registers: what may live in one during a loop, and what must stay in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfkit.codegen.nodes import Register, Scope, walk
from tests.codegen.harness import assert_same, nodes_of, scheduled
from tests.programs_ir import LU, MATMUL


def registers(text: str, steps: str = "", fp: str = "strict") -> list[Register]:
    nodes = nodes_of(scheduled(text, steps, fp))
    return [r for top in nodes for n in walk(top) if isinstance(n, Scope) for r in n.registers]


def product(limit: str) -> str:
    """A[i, j] -= A[i, k] * A[k, j], the heart of LU, over some k."""
    return f"""
params n
context n >= 1
array A[n, n] float64
S0[i, j, k]: 0 <= i < n and 0 <= j < n and {limit}: A[i, j] = A[i, j] - A[i, k] * A[k, j]
tree
for i(S0: i) for j(S0: j) for k(S0: k) S0
"""


def test_a_sum_lives_in_a_register(tmp_path: Path) -> None:
    (found,) = registers(MATMUL)
    assert (found.access.array, found.load, found.store) == ("C", True, True)
    source = assert_same(tmp_path, scheduled(MATMUL), {"n": 1}, {"n": 9})
    assert "double C_1 = C[i][j];" in source and "C[i][j] = C_1;" in source


@pytest.mark.parametrize("limit", ["0 <= k < n", "0 <= k <= j", "0 <= k <= i", "j <= k < n"])
def test_elements_that_may_meet_stay_in_memory(tmp_path: Path, limit: str) -> None:
    """For k = j, A[i, k] is A[i, j]; for k = i, A[k, j] is."""
    assert registers(product(limit)) == []
    assert_same(tmp_path, scheduled(product(limit)), {"n": 1}, {"n": 8})


def test_bounds_that_keep_them_apart_are_understood(tmp_path: Path) -> None:
    limit = "0 <= k < j and 0 <= k < i"
    assert [str(r.access) for r in registers(product(limit))] == ["A[i, j]"]
    assert_same(tmp_path, scheduled(product(limit)), {"n": 1}, {"n": 8})


def test_lu_keeps_its_elements_in_registers(tmp_path: Path) -> None:
    assert len(registers(LU)) == 2
    assert_same(tmp_path, scheduled(LU), {"n": 1}, {"n": 2}, {"n": 11})


def test_neighbours_within_a_vector_may_meet(tmp_path: Path) -> None:
    """Lanes j..j+3 read what another statement writes at j+2."""
    text = """
params n
context n >= 4
array A[n, n] float64
array B[n] float64
S0[k, j]: 0 <= k < n and 0 <= j < n: A[k, j] = A[k, j] + B[j]
S1[k, j]: 0 <= k < n and 0 <= j < n - 2: B[j] = A[k, j + 2]
tree
for k(S0: k, S1: k) { for j(S0: j) S0; for j_2(S1: j) S1 }
"""
    state = scheduled(text, "Vectorize(j, 4)\nVectorize(j_2, 4)")
    assert_same(tmp_path, state, {"n": 4}, {"n": 7}, {"n": 16})


@pytest.mark.parametrize("first", ["A[i, 0]", "A[0, i]", "A[i, i]"])
def test_a_column_that_is_written_and_read(tmp_path: Path, first: str) -> None:
    text = f"""
params n
context n >= 1
array A[n, n] float64
S0[i, j]: 0 <= i < n and 0 <= j < n: A[i, j] = A[i, j] + {first}
tree
for i(S0: i) for j(S0: j) S0
"""
    assert_same(tmp_path, scheduled(text), {"n": 1}, {"n": 6})
    assert_same(tmp_path, scheduled(text, "Unroll(j, 3)"), {"n": 1}, {"n": 6})


def test_nothing_is_stored_where_the_loop_does_not_run(tmp_path: Path) -> None:
    """A register's load and store are guarded: the element may not exist."""
    text = """
params n m
context n >= 1 and m >= 0
array A[n] float64
array B[n, m] float64
S0[i, j]: 0 <= i < n and 0 <= j < m - 3: A[i] = A[i] + B[i, j]
tree
for i(S0: i) for j(S0: j) S0
"""
    source = assert_same(tmp_path, scheduled(text), {"n": 3, "m": 0}, {"n": 3, "m": 9})
    assert "if (m >= 4)" in source


@pytest.mark.parametrize(("fp", "shown"), [
    ("strict", "C[i] + (A[i] * A[k] + B[i] * B[k])"),
    ("reassociate", "C[i] + A[i] * A[k] + B[i] * B[k]"),
])  # fmt: skip
def test_products_are_added_one_at_a_time_where_the_order_is_free(
    tmp_path: Path, fp: str, shown: str
) -> None:
    text = """
params n
context n >= 1
array A[n] float64
array B[n] float64
array C[n] float64
S0[i, k]: 0 <= i < n and 0 <= k < n: C[i] = C[i] + (A[i] * A[k] + B[i] * B[k])
tree
for k(S0: k) for i(S0: i) S0
"""
    source = assert_same(tmp_path, scheduled(text, "", fp), {"n": 1}, {"n": 9}, rtol=1e-12)
    assert shown in source
