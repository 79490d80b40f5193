"""Packing operands of tiled sums, and snapshots of arrays that are read before they are written."""

from __future__ import annotations

import pytest

from perfkit.errors import IllegalSchedule, ScriptError, TransformError
from perfkit.ir.tree import enclosing, find_loop, statements
from perfkit.schedule import script
from perfkit.schedule.flow import preserves_flow
from perfkit.schedule.relayout import Relayout
from perfkit.schedule.state import State
from perfkit.schedule.storage import auto_snapshot
from tests.programs_ir import parse_scop
from tests.schedule.storage_programs import same_results

GEMM = """
params n m
context n >= 1 and m >= 1
array C[n, n] float64
array A[n, m] float64
array B[m, n] float64
scalar alpha float64
S0[i, j, k]: 0 <= i < n and 0 <= j < n and 0 <= k < m: C[i, j] = C[i, j] + alpha * A[i, k] * B[k, j]
tree
for i(S0: i) for j(S0: j) for k(S0: k) S0
"""

BATCHED = """
params b n
context b >= 1 and n >= 1
array C[b, n, n] float64
array A[b, n, n] float64
array B[b, n, n] float64
S0[r, i, j, k]: 0 <= r < b and 0 <= i < n and 0 <= j < n and 0 <= k < n: \
C[r, i, j] = C[r, i, j] + A[r, i, k] * B[r, k, j]
tree
for r(S0: r) for i(S0: i) for j(S0: j) for k(S0: k) S0
"""

TRIANGULAR_PRODUCT = """
params n
context n >= 1
array A[n, n] float64
array B[n, n] float64
S0[i, j, k]: 0 <= i < n and 0 <= j < n and i < k < n: B[i, j] = B[i, j] + A[k, i] * B[k, j]
tree
for i(S0: i) for j(S0: j) for k(S0: k) S0
"""

TILED = "Tile(i=2, j=3, k=4)\nInterchange(j_t, k_t)\n"


def packed(text: str, steps: str) -> State:
    """After the script, whose result was run beside the program's own order."""
    start = State.start(parse_scop(text))
    state = script.replay(start, steps)
    preserves_flow(start.scop, state)
    same_results(start.scop, state)
    return state


@pytest.mark.parametrize(
    ("step", "copies", "around"),
    [
        ('Pack(S0, "B[k, j]", j_t)', "B[x0, x1]", ["i_t", "k_t", "j_t"]),
        ('Pack(S0, "A[i, k]", k_t)', "A[x0, x1]", ["i_t", "k_t"]),
        ('Pack(S0, "B[k, j]", j_t, (1, 0))', "B[x0, x1]", ["i_t", "k_t", "j_t"]),
        ('Pack(S0, "B[k, j]")', "B[x0, x1]", []),
        ('Pack(S0, "B[k, j]", order=(1, 0))', "B[x0, x1]", []),
    ],
)
def test_pack_copies_a_tile_where_it_is_told_to(step: str, copies: str, around: list[str]) -> None:
    state = packed(GEMM, TILED + step)
    copy = state.scop.statements[-1]
    assert [str(r) for r in copy.reads] == [copies]
    shared = [loop.name for loop in enclosing(state.tree, copy.name) if "copy" not in loop.name]
    assert shared == around
    parsed = script.parse(step)
    assert script.parse(script.show(parsed)) == parsed


def test_factors_are_applied_while_copying() -> None:
    state = packed(GEMM, TILED + 'Pack(S0, "A[i, k]", k_t, factors=True)')
    assert "alpha" in str(state.scop.statements[-1].value)
    assert "alpha" not in str(state.scop.statement("S0").value)


def test_a_whole_operand_keeps_its_batches_apart() -> None:
    state = packed(BATCHED, TILED + 'Pack(S0, "B[r, k, j]")')
    buffer = state.scop.array("B_pack")
    assert [str(e) for e in buffer.shape[-2:]] == ["4", "3"] and buffer.rank == 5


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ('Pack(S0, "B[k, j]")', "no loop tiles"),
        ('Pack(S0, "B[j, k]", i)', "S0 reads"),
        ('Pack(S9, "B[k, j]", i)', "no statement"),
        ('Pack(S0, "B[k, j]", i, (0, 0))', "no loop .* tiles|permute"),
    ],
)
def test_pack_refuses(step: str, why: str) -> None:
    point_loops_only = "Interchange(j, k)\n"
    with pytest.raises((ScriptError, TransformError), match=why):
        packed(GEMM, point_loops_only + step)


def test_an_operand_whose_values_change_is_not_packed_early() -> None:
    running = TRIANGULAR_PRODUCT.replace("i < k < n", "0 <= k < i")  # reads what was written
    with pytest.raises(IllegalSchedule):
        packed(running, 'Tile(j=3, k=4)\nPack(S0, "B[k, j]")')


def test_a_snapshot_frees_the_loop_that_writes() -> None:
    start = State.start(parse_scop(TRIANGULAR_PRODUCT))
    (step,) = auto_snapshot(start)
    assert str(step) == 'Relayout(B, (0, 1,), "B[k, j]")'
    with pytest.raises(IllegalSchedule):
        script.replay(start, "Parallelize(i)")
    state = packed(TRIANGULAR_PRODUCT, f"{step}\nParallelize(i)")
    assert statements(find_loop(state.tree, "i")) == ("S0",)


def test_no_snapshot_of_what_is_still_to_change() -> None:
    running = TRIANGULAR_PRODUCT.replace("i < k < n", "0 <= k < i")
    with pytest.raises(IllegalSchedule):
        Relayout("B", (0, 1), "B[k, j]").apply(State.start(parse_scop(running)))


@pytest.mark.parametrize(
    "step",
    [
        'Pack(S0, "A[i, k]", k_t, (1, 0,), panel=2)',
        'Pack(S0, "B[k, j]", j_t, panel=3)',
        'Pack(S0, "B[k, j]", order=(0, 1), panel=1)',
    ],
)
def test_panels_follow_one_another(step: str) -> None:
    state = packed(GEMM, "Tile(i=4, j=6, k=4)\nInterchange(j_t, k_t)\n" + step)
    assert len(state.scop.statements[-1].write.indices) > 4
    assert script.show(script.parse(step)).strip() == step


def test_a_tile_must_hold_whole_panels() -> None:
    with pytest.raises(TransformError, match="no multiple of 4"):
        packed(GEMM, 'Tile(i=2, j=6, k=4)\nPack(S0, "B[k, j]", k_t, panel=4)')
