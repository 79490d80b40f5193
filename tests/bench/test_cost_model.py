"""The accuracy table of the cost models, without training anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from bench import cost_model, cost_model_polybench
from perfkit import config
from perfkit.cost.device import Device
from perfkit.cost.model import Model
from perfkit.cost.model_boosted import Boosted
from perfkit.learn.dataset import Entry, Row
from perfkit.learn.examples import Group, group_of
from perfkit.learn.measure import Runner
from perfkit.learn.metrics import METRICS
from perfkit.learn.programs import Sample
from perfkit.runtime.machine import Machine

TEXT = """\
def program(n, m, A: "float64[n, m]", B: "float64[n, m]"):
    for i in range(n):
        for j in range(m):
            B[i, j] = 0.5 * A[i, j]
"""
FLAT = Boosted(
    np.array([0]), np.array([0.0]), np.array([0]), np.array([0]), np.array([0.0]), np.array([0]),
    1.0,
)  # fmt: skip


def _groups() -> list[Group]:
    rows = tuple(
        Row(s, k, "ok", (t, 1.1 * t))
        for s, k, t in (("", "original", 4e-4), ("Parallelize(i)", "seed", 2e-4),
                        ("Interchange(i, j)", "random", 9e-4))
    )  # fmt: skip
    sample = Sample(0, 1, "jacobi", TEXT, (("n", 200), ("m", 300)), "strict")
    group = group_of(Entry(sample, rows), Device.of(Machine.detect(), 2))
    assert group is not None
    return [replace(group, split=s) for s in ("random", "families", "train")]


def test_the_table_has_every_metric_of_every_model() -> None:
    rows = cost_model.table(_groups(), Model((FLAT,), {}), epochs=0)
    assert set(rows) == {"main", "roofline", "noise"}
    for found in rows.values():
        assert set(found) == {"random", "families", "polybench"}
        assert all(set(m) == set(METRICS) for m in found.values())
    assert rows["noise"]["random"]["spearman"] > 0.99
    assert abs(rows["noise"]["random"]["mape_mean"] - 10) < 0.01
    # a model that multiplies all that the analytic one says by one number
    assert rows["main"]["random"]["spearman"] == rows["roofline"]["random"]["spearman"]
    assert rows["main"]["random"]["mape_mean"] != rows["roofline"]["random"]["mape_mean"]
    text = cost_model.show(rows, {"random": 1, "families": 1, "polybench": 0})
    assert "polybench" not in text  # nothing was measured of it
    assert "random (1 programs)" in text and "roofline" in text


def test_measured_schedules_of_a_kernel_become_examples(tmp_path: Path) -> None:
    settings = replace(config.current(), search_seconds=0.2, threads=1)
    assert cost_model_polybench.prepare(tmp_path, "gesummv", "SMALL", 6, settings) >= 3
    with Runner() as runner:
        assert cost_model_polybench.measure(tmp_path / "gesummv-SMALL.json", runner) >= 2
    (found,) = cost_model_polybench.groups(tmp_path, Device.of(Machine.detect(), 1))
    assert found.split == "polybench" and found.original == 0
    assert len(found.tokens) == len(found.seconds)
    assert np.isfinite(found.seconds).all() and np.isfinite([t.guess for t in found.tokens]).all()
