"""One parallel region, worksharing clauses, and reductions on threads and in lanes."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfkit.errors import IllegalSchedule
from tests.codegen.harness import assert_same, scheduled, source_of
from tests.programs_ir import JACOBI_1D, MATMUL

SIZES = ({"n": 1}, {"n": 2}, {"n": 9}, {"n": 37}, {"n": 5000})


def folded(update: str, dtype: str) -> str:
    return f"""
params n
context n >= 1
array a[n] {dtype}
array s {dtype}
S0[i]: 0 <= i < n: s = {update}
tree
for i(S0: i) S0
"""


UPDATES = {
    "add": "s + a[i]",
    "mul": "s * a[i]",
    "min": "min(s, a[i])",
    "max": "max(s, a[i])",
}


@pytest.mark.parametrize(
    "steps", ["Parallelize(i)", "Vectorize(i, 8)", "Vectorize(i, 4)\nParallelize(i)"]
)
@pytest.mark.parametrize("dtype", ["float64", "float32", "int32", "int64"])
@pytest.mark.parametrize("op", list(UPDATES))
def test_reductions(tmp_path: Path, op: str, dtype: str, steps: str) -> None:
    """Floats are reordered within rounding; integers and extremes give the same bits."""
    floating = dtype.startswith("float") and op in ("add", "mul")
    # Products of thousands of numbers near 1 stay in range only while there are few.
    sizes = [s for s in SIZES if op != "mul" or not floating or s["n"] < 100]
    rtol = (1e-11 if dtype == "float64" else 1e-3) if floating else 0.0
    state = scheduled(folded(UPDATES[op], dtype), steps, "reassociate")
    source = assert_same(tmp_path, state, *sizes, rtol=rtol)
    if "Parallelize" in steps:
        sign = {"add": "+", "mul": "*"}.get(op, op)
        assert f"reduction({sign}:s_all1)" in source


def test_strict_sums_are_not_reordered() -> None:
    for step in ("Parallelize(i)", "Vectorize(i, 4)"):
        with pytest.raises(IllegalSchedule):
            scheduled(folded(UPDATES["add"], "float64"), step)


def test_threads_reduce_two_elements_and_lanes_a_third(tmp_path: Path) -> None:
    text = """
params n
context n >= 1
array a[n, n] float64
array s float64
array t[n] float64
S0[i, j]: 0 <= i < n and 0 <= j < n: s = s + a[i, j]
S1[i, j]: 0 <= i < n and 0 <= j < n: t[0] = t[0] + a[i, j] * 2.0
tree
for i(S0: i, S1: i) for j(S0: j, S1: j) { S0; S1 }
"""
    sizes = ({"n": 1}, {"n": 7}, {"n": 40})
    both = scheduled(text, "Parallelize(i)\nVectorize(j, 4)", "reassociate")
    source = assert_same(tmp_path, both, *sizes, rtol=1e-12)
    assert source.count("reduction(+:") == 2


def test_a_parallel_reduction_inside_a_parallel_loop(tmp_path: Path) -> None:
    """One level of threads: the inner mark is dropped, the lanes stay."""
    steps = "Distribute(j)\nParallelize(i)\nVectorize(k, 4)\nParallelize(k)"
    state = scheduled(MATMUL, steps, "reassociate")
    source = assert_same(tmp_path, state, {"n": 1}, {"n": 11}, {"n": 18}, rtol=1e-12)
    assert source.count("#pragma omp for") == 1 and "reduction(" not in source


def test_several_worksharing_loops_share_one_region(tmp_path: Path) -> None:
    state = scheduled(JACOBI_1D, "Parallelize(i)\nParallelize(i_2)")
    source = assert_same(tmp_path, state, {"n": 30, "t": 4}, {"n": 2, "t": 2})
    assert source.count("#pragma omp parallel") == 1
    assert source.count("#pragma omp for") == 2
    region = source.index("#pragma omp parallel")
    assert region < source.index("for (int64_t s = ")


def test_what_lies_between_parallel_loops_is_done_once(tmp_path: Path) -> None:
    text = """
params n
context n >= 2
array a[n] float64
array b[n] float64
array s float64
S0[i]: 0 <= i < n: a[i] = b[i] * 2.0
S1[]: true: s = a[0] + a[1]
S2[i]: 0 <= i < n: b[i] = a[i] + s
tree
{ for i(S0: i) S0; S1; for i_2(S2: i) S2 }
"""
    source = assert_same(
        tmp_path, scheduled(text, "Parallelize(i)\nParallelize(i_2)"), {"n": 2}, {"n": 50}
    )
    assert source.count("#pragma omp single") == 1


def doubled(limit: str) -> str:
    """A matrix doubled where ``limit`` bounds the columns."""
    return f"""
params n
context n >= 1
array a[n, n] float64
S0[i, j]: 0 <= i < n and {limit}: a[i, j] = a[i, j] * 2.0
tree
for i(S0: i) for j(S0: j) S0
"""


@pytest.mark.parametrize(
    ("limit", "steps", "clause"),
    [
        ("0 <= j < n", "Parallelize(i)", "schedule(static)"),
        ("0 <= j <= i", "Parallelize(i)", "schedule(guided)"),
        ("0 <= j <= i", "Tile(i=4, j=4)\nParallelize(i_t)", "schedule(dynamic)"),
        ("0 <= j < n", "Tile(i=4, j=4)\nParallelize(i_t)", "schedule(static)"),
    ],
)
def test_uneven_iterations_are_handed_out_in_small_parts(
    tmp_path: Path, limit: str, steps: str, clause: str
) -> None:
    source = assert_same(tmp_path, scheduled(doubled(limit), steps), {"n": 1}, {"n": 23})
    assert clause in source


@pytest.mark.parametrize(
    ("limit", "head"),
    [
        ("0 <= j <= i", "i_t >= 0; --i_t"),
        ("i <= j < n", "++i_t"),
    ],
)
def test_long_iterations_go_first(tmp_path: Path, limit: str, head: str) -> None:
    state = scheduled(doubled(limit), "Tile(i=4, j=4)\nParallelize(i_t)")
    source = assert_same(tmp_path, state, {"n": 1}, {"n": 23})
    assert head in source


def test_strips_of_a_parallel_loop_leave_a_tail(tmp_path: Path) -> None:
    """The strips' loop has a variable of its own, so what is left over finds its own start."""
    text = """
params n
context n >= 1
array a[n] float64
array b[n] float64
S0[i]: 0 <= i < n: a[i] = b[i] * 2.0
tree
for i(S0: i) S0
"""
    state = scheduled(text, "Vectorize(i, 8)\nParallelize(i)")
    assert_same(tmp_path, state, *({"n": n} for n in (1, 7, 8, 9, 16, 31, 100)))


def test_a_sequential_program_has_no_region() -> None:
    assert "omp" not in source_of(scheduled(JACOBI_1D)).split("static int64_t kernel_kernel(")[1]


@pytest.mark.parametrize("steps", ["Jam(i, 3)", "Unroll(i, 2)", "Vectorize(i, 4)"])
def test_copies_of_a_parallel_reduction_sum_elements_of_their_own(
    tmp_path: Path, steps: str
) -> None:
    text = """
params n home
context n >= 1 and home >= 1
array a[n, home] float64
array s[n] float64
S0[i, j]: 0 <= i < n and 0 <= j < home: s[i] = s[i] + a[i, j]
tree
for i(S0: i) for j(S0: j) S0
"""
    state = scheduled(text, f"{steps}\nParallelize(j)", "reassociate")
    assert_same(tmp_path, state, {"n": 1, "home": 5}, {"n": 11, "home": 9}, rtol=1e-12)
