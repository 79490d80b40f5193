"""Exchanges inside a program: planted mistakes that the proof must refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from perfkit.codegen.triton import generate_module
from perfkit.codegen.triton_exchange import prove, separate
from perfkit.codegen.triton_nodes import Barrier, Held, If, Node, Repeat, walk
from perfkit.errors import IllegalSchedule
from perfkit.ir.tree import Mark, map_loops
from tests.codegen.harness import scheduled, signature
from tests.codegen.test_triton import EXCHANGE, program
from tests.schedule.test_gpu import PREFIX

Change = Callable[[tuple[Node, ...]], tuple[Node, ...]]

NEIGHBOURS = """
params n
context n >= 1
array x[n + 1] float64
array y[n] float64
S0[j]: 0 <= j < n: x[j] = 1.0
S1[j]: 0 <= j < n: y[j] = x[j + 1]
tree
{ for j(S0: j) S0; for j_2(S1: j) S1 }
"""
SAME_LANE = NEIGHBOURS.replace("x[j + 1]", "x[j]")
ROWS = """
params n m
context n >= 1 and m >= 1
array x[m] float64
array y[n, m] float64
S0[i, j]: 0 <= i < n and 0 <= j < m: x[j] = y[i, j] * 2.0
S1[i, j]: 0 <= i < n and 0 <= j < m: y[i, j] = x[m - 1 - j]
tree
for i(S0: i, S1: i) { for j(S0: j) S0; for j_2(S1: j) S1 }
"""
LANES = "MapBlock(j, 32); MapBlock(j_2, 32)"


def rewritten(nodes: tuple[Node, ...], change: Change) -> tuple[Node, ...]:
    """The program with ``change`` made in every block, innermost first."""
    inside = tuple(
        replace(n, body=rewritten(n.body, change)) if isinstance(n, Repeat | If | Held) else n
        for n in nodes
    )
    return change(inside)


def only_barriers(nodes: tuple[Node, ...]) -> int:
    return sum(isinstance(n, Barrier) for n in walk(nodes))


def conditional(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Every barrier under a condition: it may be skipped."""
    return tuple(If(((),), (n,)) if isinstance(n, Barrier) else n for n in nodes)


def looped(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Every barrier in a loop, which may run no iteration."""
    made = []
    for n in nodes:
        template = next((x for x in nodes if isinstance(x, Repeat)), None)
        if isinstance(n, Barrier) and template is not None:
            made.append(replace(template, name=f"{template.name}_empty", body=(n,)))
        else:
            made.append(n)
    return tuple(made)


def early(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Every barrier before what it should follow."""
    barriers = [n for n in nodes if isinstance(n, Barrier)]
    return (*barriers, *(n for n in nodes if not isinstance(n, Barrier)))


def missing(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    return tuple(n for n in nodes if not isinstance(n, Barrier))


@pytest.mark.parametrize("text", [NEIGHBOURS, SAME_LANE, ROWS, EXCHANGE])
@pytest.mark.parametrize("change", [missing, conditional, looped, early])
def test_barriers_that_separate_nothing_are_refused(text: str, change: Change) -> None:
    space, nodes = program(scheduled(text, LANES))
    safe = separate(space, space.deps, nodes)
    assert only_barriers(safe) > 0
    prove(space, space.deps, safe)
    with pytest.raises(IllegalSchedule, match="without a barrier"):
        prove(space, space.deps, rewritten(safe, change))


def test_each_barrier_of_a_loop_is_needed() -> None:
    space, nodes = program(scheduled(ROWS, LANES))
    safe = separate(space, space.deps, nodes)
    (outer,) = safe
    assert isinstance(outer, Repeat)
    places = [k for k, n in enumerate(outer.body) if isinstance(n, Barrier)]
    assert len(places) == 2
    for k in places:
        fewer = replace(outer, body=tuple(n for p, n in enumerate(outer.body) if p != k))
        with pytest.raises(IllegalSchedule, match="without a barrier"):
            prove(space, space.deps, (fewer,))


def test_what_stays_in_the_loop_before_needs_one_to_leave_it() -> None:
    """A scan hands its last element from block to block through memory."""
    space, nodes = program(scheduled(PREFIX, "MapBlock(i, 64)", "reassociate"))
    safe = separate(space, space.deps, nodes)
    prove(space, space.deps, safe)
    with pytest.raises(IllegalSchedule, match="without a barrier"):
        prove(space, space.deps, rewritten(safe, missing))


def test_programs_that_exchange_nothing_have_no_barrier() -> None:
    space, nodes = program(scheduled(
        NEIGHBOURS.replace("y[j] = x[j + 1]", "y[j] = 2.0"), LANES))  # fmt: skip
    assert only_barriers(separate(space, space.deps, nodes)) == 0


@pytest.mark.parametrize("loop", ["i", "j"])
def test_recurrences_over_either_dimension_of_a_grid_are_refused(loop: str) -> None:
    text = """
params n
context n >= 2
array x[n, n] float64
S0[i, j]: 1 <= i < n and 1 <= j < n: x[i, j] = x[i - 1, j] + 1.0
tree
for i(S0: i) for j(S0: j) S0
"""
    if loop == "j":
        text = text.replace("x[i - 1, j]", "x[i, j - 1]")
    with pytest.raises(IllegalSchedule, match=f"carried by grid loop {loop}"):
        scheduled(text, "MapGrid(i, j)")
    legal = scheduled(text, "Interchange(i, j); MapGrid(j)" if loop == "i" else "MapGrid(i)")
    forged = map_loops(legal.tree, lambda x: replace(x, marks=(Mark("grid"),)))

    with pytest.raises(IllegalSchedule, match=f"grid loop {loop}"):
        generate_module(legal.with_tree(forged), signature(legal.original, "kernel"))
