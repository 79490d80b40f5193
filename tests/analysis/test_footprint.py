"""Strides, trip counts and footprints against counting by hand; storage contraction."""

from __future__ import annotations

import pytest

from perfkit.analysis.contraction import contractions
from perfkit.analysis.dependences import Analysis
from perfkit.analysis.footprint import WRITE, Trips, footprints, walks
from perfkit.ir.isl import Polyhedra
from perfkit.ir.tree import Node, parse
from perfkit.schedule.state import State
from perfkit.schedule.storage import Expand
from tests import programs_ir
from tests.schedule.storage_programs import program

TILED = """{
  for a(S0: i) for b(S0: j) S0;
  for it(S1: floor(i/32)) for jt(S1: floor(j/32)) for kt(S1: floor(k/32))
    for i(S1: i) for k(S1: k) for j(S1: j) S1
}"""


def steps(tree: Node) -> dict[tuple[str, str], str]:
    scop = programs_ir.program("matmul")
    return {
        (w.array, w.loop): ", ".join(map(str, w.steps))
        for w in walks(scop, tree)
        if w.statement == "S1" and w.position != WRITE
    }


def test_walks_of_tiled_loops() -> None:
    found = steps(parse(TILED))
    assert found["A", "it"] == "32, 0" and found["A", "jt"] == "0, 0" and found["A", "k"] == "0, 1"
    assert found["B", "kt"] == "32, 0" and found["B", "j"] == "0, 1"


def test_walks_of_skewed_loops() -> None:
    scop = programs_ir.program("seidel")
    tree = parse("for w(S0: 2*s + i) for s(S0: s) for j(S0: j + s) S0")
    found = {w.loop: w for w in walks(scop, tree) if w.position == WRITE}
    # one wavefront later at the same s and j + s: i grows
    assert [str(x) for x in found["w"].steps] == ["1", "0"]
    # the next s on a wavefront: i shrinks by two, j by one
    assert [str(x) for x in found["s"].steps] == ["-2", "-1"]
    assert found["j"].is_unit and found["s"].stride((10, 10)) == -21


def test_kinds_of_walks() -> None:
    scop = programs_ir.program("matmul")
    found = {(w.array, w.loop): w for w in walks(scop, parse(TILED)) if w.statement == "S1"}
    assert found["A", "j"].is_invariant and not found["A", "j"].is_unit
    assert not found["B", "k"].is_unit and not found["B", "k"].is_invariant


def test_trips_of_rectangular_tiles() -> None:
    scop = programs_ir.program("matmul")
    trips = Trips(Polyhedra(scop), parse(TILED)).at({"n": 1024})
    for loop in ("it", "jt", "kt", "i", "k", "j"):
        assert trips["S1", loop].mean == pytest.approx(32)
    assert trips["S1", "j"].total == pytest.approx(1024**3)


def test_trips_of_triangles() -> None:
    scop = programs_ir.program("lu")
    trips = Trips(Polyhedra(scop), scop.tree).at({"n": 200})
    exact = sum(j for i in range(200) for j in range(i))
    assert trips["S0", "k"].total == pytest.approx(exact, rel=0.02)
    assert trips["S1", "j"].total == pytest.approx(200 * 199 / 2, rel=0.01)


def test_trips_of_empty_loops() -> None:
    scop = programs_ir.program("jacobi_1d")
    trips = Trips(Polyhedra(scop), scop.tree).at({"n": 2, "t": 5})
    assert trips["S0", "i"].total == 0 and trips["S0", "i"].mean == 0


def test_footprints_grow_outwards() -> None:
    scop = programs_ir.program("matmul")
    tree = parse(TILED)
    sizes = {"n": 1024}
    rows = footprints(scop, tree, sizes, Trips(Polyhedra(scop), tree))
    found = {(r.array, r.loop): r for r in rows if r.statement == "S1" and r.position != WRITE}
    assert found["A", "j"].elements == 1
    assert found["A", "k"].lines == pytest.approx(4)
    assert found["B", "k"].bytes == pytest.approx(32 * 32 * 8)
    assert found["B", "i"].bytes == pytest.approx(32 * 32 * 8)
    assert found["C", "it"].bytes == pytest.approx(1024 * 1024 * 8)


# -- contraction -----------------------------------------------------------------------------


def contracted(state: State, tree: str = "") -> dict[str, tuple[str, tuple[int, ...]]]:
    analysis = Analysis()
    poly = analysis.polyhedra(state.scop)
    found = contractions(poly, parse(tree) if tree else state.tree, analysis.flows(state.scop))
    return {name: (c.loop, c.kept) for name, c in found.items()}


def test_an_expanded_scalar_contracts_in_its_own_order() -> None:
    state = Expand("acc").apply(State.start(program("symm")))
    assert contracted(state) == {"acc": ("j", ())}


def test_a_recurrence_contracts_to_its_outer_loop() -> None:
    state = Expand("ym").apply(State.start(program("filter")))
    assert contracted(state)["ym"] == ("i", ())


def test_interchange_keeps_a_row() -> None:
    state = Expand("acc").apply(State.start(program("symm")))
    tree = """for i(S0: i, S1: i, S2: i, S3: i) {
      for j(S0: j) S0; for j_2(S1: j, S2: j) for k(S1: k, S2: k) { S1; S2 }; for j_3(S3: j) S3 }"""
    assert contracted(state, tree) == {"acc": ("i", (1,))}


def test_separate_nests_keep_everything() -> None:
    state = Expand("t").apply(State.start(program("two_webs")))
    tree = """{ for a(S0: i) S0; for b(S1: i) S1; for c(S2: i, S3: i) { S2; S3 } }"""
    assert contracted(state, tree) == {"t": ("", (0,)), "t_2": ("c", ())}


def test_an_unexpanded_scalar_is_carried() -> None:
    assert contracted(State.start(program("lagged"))) == {"t": ("", ())}
