"""Every transform: one use that works, one that does not fit, one that is illegal."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from perfkit.analysis.dependences import Analysis
from perfkit.errors import IllegalSchedule, ScheduleError, ScriptError, TransformError
from perfkit.ir.tree import parse, show
from perfkit.schedule.state import State
from perfkit.schedule.transforms import (
    Distribute,
    Embed,
    Fuse,
    Interchange,
    Jam,
    Order,
    Parallelize,
    Reorder,
    Reverse,
    Shift,
    Skew,
    StripMine,
    Tile,
    TreeTransform,
    Unmark,
    Unroll,
    Vectorize,
    Wavefront,
    solve_shift,
)
from tests.brute import Brute
from tests.programs_ir import program

Apply = Callable[..., State]


def apply(name: str, *steps: TreeTransform, fp: str = "strict") -> State:
    analysis = Analysis()
    state = State.start(program(name), fp)
    for step in steps:
        state = step.apply(state, analysis)
    sizes = dict.fromkeys(state.scop.parameters, 5)
    assert Brute(state.scop, sizes, fp).violation(state.tree) is None
    return state


def becomes(name: str, steps: list[TreeTransform], text: str) -> None:
    assert show(apply(name, *steps).tree) == show(parse(text))


def refused(name: str, *steps: TreeTransform, error: type[ScheduleError] = IllegalSchedule) -> None:
    with pytest.raises(error):
        apply(name, *steps)


def test_fuse() -> None:
    assert solve_shift(State.start(program("producer_consumer")), Analysis(), "i", "i_2") == 2
    becomes(
        "producer_consumer",
        [Fuse("i", "i_2", shift=2)],
        "for i(S0: i, S1: i + 2) { S0; S1 }",
    )
    refused("producer_consumer", Fuse("i", "i_2", shift=1))
    refused("matmul", Fuse("i", "k"), error=TransformError)
    refused("matmul", Fuse("i", "x"), error=ScriptError)
    assert solve_shift(State.start(program("jacobi_1d")), Analysis(), "i", "i_2") == 1


def test_distribute() -> None:
    becomes(
        "matmul",
        [Distribute("j"), Distribute("i")],
        "{ for i(S0: i) for j(S0: j) S0; for i_2(S1: i) for j_2(S1: j) for k(S1: k) S1 }",
    )
    becomes(
        "trisolv",
        [Distribute("i", after="S0")],
        "{ for i(S0: i) S0; for i_2(S1: i, S2: i) { for j(S1: j) S1; S2 } }",
    )
    refused("trisolv", Distribute("i"))
    refused("seidel", Distribute("j"), error=TransformError)
    refused("trisolv", Distribute("i", after="S2"), error=TransformError)


def test_interchange() -> None:
    becomes("seidel", [Skew("i", "s"), Skew("i", "s"), Skew("j", "s"), Interchange("s", "i")],
            "for i(S0: i + 2*s) for s(S0: s) for j(S0: j + s) S0")  # fmt: skip
    refused("seidel", Interchange("s", "i"))
    refused("matmul", Interchange("j", "k"), error=TransformError)


def test_reverse() -> None:
    becomes("matmul", [Reverse("i")],
            "for i(S0: -i, S1: -i) for j(S0: j, S1: j) { S0; for k(S1: k) S1 }")  # fmt: skip
    refused("matmul", Reverse("k"))
    apply("matmul", Reverse("k"), fp="reassociate")


def test_skew_and_wavefront() -> None:
    steps = [Skew("i", "s"), Skew("j", "s"), Skew("j", "i"), Wavefront("s", "i")]
    state = apply("seidel", *steps)
    assert show(state.tree).startswith("for s(S0: i + 2*s)\n  for i(S0: i + s)")
    apply("seidel", *steps[:3], Tile(s=2, i=2, j=2), Wavefront("s_t", "i_t"), Parallelize("i_t"))
    refused("seidel", *steps[:3], Tile(s=2, i=2, j=2), Parallelize("i_t"))
    refused("seidel", Skew("i", "s", 0), error=TransformError)
    refused("matmul", Wavefront("i", "k"), error=TransformError)
    refused("matmul", Skew("i", "k"), error=TransformError)
    refused("seidel", Skew("i", "s", -1), Interchange("s", "i"))


def test_shift() -> None:
    becomes("producer_consumer", [Fuse("i", "i_2", 2), Shift("S1", "i", "n - 2")],
            "for i(S0: i, S1: i + n) { S0; S1 }")  # fmt: skip
    refused("producer_consumer", Fuse("i", "i_2", 2), Shift("S1", "i", -1))
    refused("matmul", Shift("S0", "k", 1), error=TransformError)
    refused("matmul", Shift("S0", "j", "q"), error=TransformError)


def test_tile_names_and_levels() -> None:
    state = apply("matmul", Embed("S0", "k"), Tile(i=8, j=8, k=8), Tile(i=2, j=2), Tile(i_t=3))
    names = [line.split("for ")[1].split("(")[0] for line in show(state.tree).splitlines()[:9]]
    assert names == ["i_t_t", "i_t", "j_t", "k_t", "i_t2", "j_t2", "i", "j", "k"]
    refused("seidel", Tile(s=4, i=4))
    refused("matmul", Tile(i=4, k=4), error=TransformError)
    refused("matmul", Tile(i=1), error=TransformError)
    becomes("dot", [StripMine("i", 4)],
            "{ S0; for i_t(S1: floor(i/4)) for i(S1: i) S1; S2 }")  # fmt: skip


def test_embed() -> None:
    becomes("matmul", [Embed("S0", "k")],
            "for i(S0: i, S1: i) for j(S0: j, S1: j) for k(S0: 0, S1: k) { S0; S1 }")  # fmt: skip
    becomes("trisolv", [Embed("S0", "j"), Embed("S2", "j", at="i"), Interchange("i", "j")],
            "for j(S0: 0, S1: j, S2: i) for i(S0: i, S1: i, S2: i) { S0; S1; S2 }")  # fmt: skip
    becomes("dot", [Embed("S2", "i", at="last")],
            "{ S0; for i(S1: i, S2: n - 1) { S1; S2 } }")  # fmt: skip
    refused("dot", Embed("S2", "i", at="first"))
    refused("dot", Embed("S2", "i", at="q"), error=TransformError)


def test_reorder_and_order() -> None:
    refused("dot", Reorder("i", "S0", "S2"))
    refused("dot", Reorder("S0", "i"), error=TransformError)
    becomes("dot", [Reorder("S0", "i", "S2")], show(program("dot").tree))
    becomes("seidel", [Order("for s(S0: s) for i(S0: s + i) for j(S0: j) S0")],
            "for s(S0: s) for i(S0: i + s) for j(S0: j) S0")  # fmt: skip
    refused("seidel", Order("for s(S0: s) for i(S0: i) S0"), error=TransformError)
    refused("seidel", Order("for s(S0: s) for i(S0: q) for j(S0: j) S0"), error=TransformError)
    refused("matmul", Order("for i(S0: i) for j(S0: j) S0"), error=TransformError)


def test_marks() -> None:
    becomes("matmul", [Parallelize("i"), Jam("j", 4), Unroll("k", 8), Unroll("k", 2)],
            "for i(S0: i, S1: i) parallel for j(S0: j, S1: j) jam(4) "
            "{ S0; for k(S1: k) unroll(2) S1 }")  # fmt: skip
    refused("matmul", Parallelize("k"))
    refused("matmul", Vectorize("k", 4))
    apply("matmul", Vectorize("k", 4), fp="reassociate")
    refused("matmul", Unroll("j", 1), error=TransformError)
    refused("seidel", Jam("s", 2))
    # a later transform must not invalidate a mark
    refused("jacobi_1d", Parallelize("i"), Fuse("i", "i_2", 1))
    apply("jacobi_1d", Parallelize("i"), Unmark("i"), Fuse("i", "i_2", 1))
