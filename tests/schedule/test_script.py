"""Scripts: the text round-trips, replays, and its errors name line and nearest word."""

from __future__ import annotations

from random import Random

import pytest

from perfkit.analysis.dependences import Analysis
from perfkit.errors import IllegalSchedule, ScriptError
from perfkit.schedule import script
from perfkit.schedule.random import random_script
from perfkit.schedule.state import State
from tests.programs_ir import PROGRAMS, program

ALL = '''
# every kind of argument
Embed(S0, k, at=first)
Tile(i=32, j=8)   # named integers
Shift(S1, k, n - 1)
Order("""
for i(S0: i, S1: i) for j(S0: j, S1: j) { S0; for k(S1: k) S1 }
""")
Relayout(A, (1, 0,), "A[i, k]")
Split(S1, "i <= 3"); Expand(C, (i,))
Fuse(a, b, shift=-2)
'''


def test_round_trip() -> None:
    steps = script.parse(ALL)
    assert len(steps) == 8
    assert script.parse(script.show(steps)) == steps


@pytest.mark.parametrize("name", PROGRAMS)
def test_random_scripts_replay(name: str) -> None:
    analysis, start = Analysis(), State.start(program(name))
    for seed in range(3):
        steps, end = random_script(start, Random(seed), 6, analysis)
        assert steps
        assert script.parse(script.show(steps)) == steps
        assert script.replay(start, script.show(steps), analysis) == end
        assert random_script(start, Random(seed), 6, analysis)[0] == steps


def test_random_scripts_store_too() -> None:
    analysis, start = Analysis(), State.start(program("matmul"))
    kinds: set[str] = set()
    for seed in range(6):
        steps, end = random_script(start, Random(seed), 3, analysis, storage=2)
        kinds |= {type(step).__name__ for step in steps}
        assert script.replay(start, script.show(steps), analysis) == end
    assert {"Pack", "Relayout", "Split"} <= kinds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Til(i=2)", "line 1: no transform is named 'Til'; did you mean Tile?"),
        ("\n\nTile(i=2", "line 3"),
        ("Tile(i=32)\nTile(ii=4)", "line 2: .*'ii'; did you mean i"),
        ("Fuse(i)", "line 1: Fuse.*missing"),
        ("Fuse(i, )", "missing"),
        ("Fuse(,)", "expected an argument"),
        ("Shift(S0, i, i*j)", "not affine"),
        ("Tile(i=2, i=3)", "twice"),
        ("Tile(i=2, 3)", "positional"),
        ("Skew(i, by=, factor=2)", "expected an argument"),
        ("3", "no transform"),
        ("Order('for i(S0: i) S1')", "line 1"),
    ],
)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(ScriptError, match=message):
        script.replay(State.start(program("matmul")), text)


def test_refusals_pass_through() -> None:
    with pytest.raises(IllegalSchedule, match=r"Reverse\(k\): violates the dependence S1 -> S1"):
        script.replay(State.start(program("matmul")), "Reverse(k)")
