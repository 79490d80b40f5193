"""Dependences of classic programs, compared with what is known and with enumeration."""

from __future__ import annotations

from random import Random

import pytest

from perfkit.analysis.dependences import (
    Analysis,
    _Accesses,
    _by_dataflow,
    analyse,
    by_subtraction,
    sample_pair,
    show_pair,
    value_flows,
)
from perfkit.errors import BudgetExceeded
from perfkit.ir.isl import Polyhedra
from perfkit.schedule.legality import is_legal
from tests.brute import Brute
from tests.fuzz.programs import random_program
from tests.programs_ir import PROGRAMS, parse_scop, program


def described(name: str, fp: str = "strict") -> list[str]:
    return [d.describe() for d in analyse(program(name), fp)]


def test_matmul() -> None:
    assert described("matmul") == [
        "S0 -> S1 (anti on C)",
        "S0 -> S1 (flow on C)",
        "S0 -> S1 (output on C)",
        "S1 -> S1 (anti on C)",
        "S1 -> S1 (flow on C)",
        "S1 -> S1 (output on C)",
    ]


def test_flow_is_value_based() -> None:
    (flow,) = (d for d in analyse(program("trisolv")).flows() if d.target == d.source)
    pairs = Polyhedra(program("trisolv"))
    # S1[i, j] reads what S1[i, j - 1] left, not what every earlier iteration wrote.
    assert show_pair(sample_pair(flow, flow.pairs)).count("S1") == 2
    assert not flow.relation.is_empty() and pairs.scop.parameters == ("n",)
    assert flow.relation.is_bijective()


def test_scalars_and_reductions() -> None:
    assert "S1 -> S1 (flow on s, reduction)" in described("dot", "reassociate")
    assert "S1 -> S1 (flow on s)" in described("dot")


def test_updates_do_not_cover() -> None:
    # Without the direct dependence S0 -> S2, dropping S1 -> S1 would free the initialisation.
    assert "S0 -> S2 (flow on s)" in described("dot", "reassociate")
    assert "S0 -> S2 (flow on s)" not in described("dot")


@pytest.mark.parametrize("name", PROGRAMS)
def test_own_order_is_legal(name: str) -> None:
    for fp in ("strict", "reassociate"):
        scop = program(name)
        assert is_legal(analyse(scop, fp), scop.tree)
    sizes = dict.fromkeys(scop.parameters, 4)
    assert Brute(scop, sizes).violation(scop.tree) is None


@pytest.mark.parametrize("seed", range(12))
def test_both_exact_analyses_agree(seed: int) -> None:
    poly = Polyhedra(parse_scop(random_program(Random(seed))))
    for array in sorted(poly.scop.written):
        acc = _Accesses(poly, frozenset([array]))
        for source, sink in acc.ends.values():
            first = _by_dataflow(source, sink, acc.writes, acc.schedule)
            assert first.is_equal(by_subtraction(source, sink, acc.writes, acc.schedule))


def test_strides_that_isl_cannot_analyse() -> None:
    scop = parse_scop(
        """
        params n
        context n >= 1
        array t float64
        S0[i, j]: 0 <= i < n and i % 3 = 1 and 0 <= j < i: t = t * 0.5
        S1[i, j]: 0 <= i < n and i % 3 = 1 and 0 <= j < i: t = 0.5 * t
        tree
        for i(S0: i, S1: i) for j(S0: j, S1: j) { S0; S1 }
        """.replace("\n        ", "\n")
    )
    deps = analyse(scop)
    assert {(d.source, d.target) for d in deps.flows()} == {("S0", "S1"), ("S1", "S0")}
    assert len(value_flows(Polyhedra(scop))) == 2


def test_budget() -> None:
    with pytest.raises(BudgetExceeded):
        Analysis(max_operations=2000).dependences(program("jacobi_2d"))


def test_analysis_remembers() -> None:
    analysis, scop = Analysis(), program("matmul")
    deps = analysis.dependences(scop)
    assert analysis.dependences(scop) is deps
    assert analysis.dependences(program("matmul")) is deps
    assert analysis.dependences(scop, "reassociate") is not deps
