"""Factorizations cut into blocks: diagonal block, panels, and the contraction behind them."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfkit.analysis.dependences import Analysis
from perfkit.errors import TransformError
from perfkit.ir.tree import loops
from perfkit.schedule import pluto, script
from perfkit.schedule.blocking import Sizes
from perfkit.schedule.panels import panels
from perfkit.schedule.state import State
from perfkit.schedule.steps import Steps
from perfkit.schedule.structure import Order
from tests.codegen.harness import assert_same
from tests.programs_ir import LU, parse_scop, program


def blocked(text: str, block: int) -> State:
    start = State.start(parse_scop(text))
    steps = Steps(start, Analysis())
    steps.take(Order.of(pluto.schedule(steps.dependences, pluto.Options("min")).tree))
    done = panels(steps, Sizes(rows=3, vectors=1, jam_tile=6), block)
    assert script.replay(start, script.show(done.done)) == done.state
    return done.state


def test_lu_becomes_blocks_and_a_register_tile(tmp_path: Path) -> None:
    state = blocked(LU, 4)
    assert len(state.scop.statements) == 8
    jammed = [loop for loop in loops(state.tree) if loop.mark("jam")]
    assert len(jammed) == 2  # below and above the diagonal
    assert_same(tmp_path, state, {"n": 1}, {"n": 4}, {"n": 13}, {"n": 30}, rtol=1e-9)


def test_a_block_wider_than_the_matrix(tmp_path: Path) -> None:
    assert_same(tmp_path, blocked(LU, 64), {"n": 1}, {"n": 13}, {"n": 70}, rtol=1e-9)


@pytest.mark.parametrize("name", ["matmul", "jacobi_2d"])
def test_programs_without_a_sum_that_waits_are_refused(name: str) -> None:
    steps = Steps(State.start(program(name)), Analysis())
    with pytest.raises(TransformError, match="panels"):
        panels(steps, Sizes())
