"""Projections: closed forms of the published table, labels, and consistency with the planner."""

from __future__ import annotations

import pytest

from perfkit.comm.counters import Counters
from perfkit.cost.transfer import transfer
from perfkit.dsp.plan import Graph
from perfkit.dsp.pricing import Passes, Stage
from perfkit.dsp.simulate import (
    DEVICES,
    LABEL,
    METHODS,
    compare,
    from_counters,
    mesh_of,
    pair_volume,
    project,
)
from perfkit.errors import PlanError

SPATIAL = Stage("spatial", frozenset("S"), 2304, flops=1e13)
TEMPORAL = Stage("temporal", frozenset("T"), 2304, flops=1e13)
VIDEO = {"T": 128, "S": 4096}


@pytest.mark.parametrize(
    ("method", "at_8", "at_128"),
    [
        ("megatron", 7.0, 7.94),
        ("ring", 1.75, 1.98),
        ("ulysses", 0.875, 0.062),
        ("dsp", 0.22, 0.0155),
    ],
)
def test_volumes_are_those_of_the_published_table(method: str, at_8: float, at_128: float) -> None:
    assert pair_volume(method, 1.0, 8) == pytest.approx(at_8, rel=0.01)  # type: ignore[arg-type]
    assert pair_volume(method, 1.0, 128) == pytest.approx(at_128, rel=0.01)  # type: ignore[arg-type]


@pytest.mark.parametrize("ranks", [2, 8])
def test_a_planned_pair_sends_what_the_closed_form_says(ranks: int) -> None:
    graph = Graph.chain(VIDEO, [SPATIAL, TEMPORAL, SPATIAL])
    projection, plan = project(graph, DEVICES["h100"], ranks, Passes(training=False))
    assert plan.switches == 2
    assert projection.sent == pair_volume("dsp", 128 * 4096 * 2304.0, ranks)
    assert projection.seconds == pytest.approx(plan.price.seconds)
    assert projection.communication == pytest.approx(sum(c[3].seconds for c in plan.changes))


@pytest.mark.parametrize("ranks", [8, 16, 64, 128])
def test_every_projection_says_that_it_is_one(ranks: int) -> None:
    graph = Graph.chain(VIDEO, [SPATIAL, TEMPORAL])
    projection, _ = project(graph, DEVICES["h800"], ranks)
    rows = compare((SPATIAL, TEMPORAL), 128 * 4096, DEVICES["h800"], ranks)
    assert [row.method for row in rows] == list(METHODS)
    for row in (projection, *rows):
        assert row.label == LABEL and LABEL in str(row)
        assert row.seconds == row.compute + row.communication
    assert min(rows, key=lambda row: row.sent).method == "dsp"


def test_training_sends_twice_and_careless_checkpointing_three_times() -> None:
    def sent(passes: Passes, method: int = 0) -> float:
        return compare((SPATIAL, TEMPORAL), 64 * 64, DEVICES["a100"], 8, passes)[method].sent

    once = sent(Passes(training=False))
    assert sent(Passes()) == 2 * once
    ring = METHODS.index("ring")  # the gradients of keys and values travel too
    assert sent(Passes(), ring) == 3 * sent(Passes(training=False), ring)
    assert sent(Passes(recompute=True)) == 2 * once
    assert sent(Passes(recompute=True, resend=True)) == 3 * once


def test_counted_traffic_is_priced_as_it_was_counted() -> None:
    counters = Counters()
    counters.add("a", "switch", sent=7_000_000, received=7_000_000)
    counters.add("a", "switch", sent=7_000_000, received=9_000_000)
    device = DEVICES["h100"]
    projection = from_counters(counters, device, 8, compute=0.25)
    assert projection.communication == transfer(16e6, 14, device.inside)
    assert projection.sent == 14e6 and projection.compute == 0.25
    assert projection.label == LABEL


def test_a_part_of_a_node_and_whole_nodes_are_meshes() -> None:
    assert mesh_of(DEVICES["h100"], 4).shape == (4,)
    assert mesh_of(DEVICES["h100"], 128).shape == (16, 8)
    assert mesh_of(DEVICES["h100"], 128).links[0] == DEVICES["h100"].across


@pytest.mark.parametrize(("ranks", "efficiency"), [(12, 0.5), (0, 0.5), (8, 0.0), (8, 1.5)])
def test_impossible_machines_are_refused(ranks: int, efficiency: float) -> None:
    with pytest.raises(PlanError):
        mesh_of(DEVICES["h100"], ranks, efficiency)
