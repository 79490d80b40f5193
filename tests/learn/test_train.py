"""Training: the two forms of the network agree, losses fall, interrupted training goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import torch

from perfkit.cost.device import Device
from perfkit.cost.model import load
from perfkit.learn import train_boosted, train_looper, train_tree
from perfkit.learn.dataset import Entry, Row
from perfkit.learn.examples import Group, group_of
from perfkit.learn.programs import Sample
from perfkit.learn.train import fit, predictions
from perfkit.learn.train_tree import Network, Recipe, Rows, scales_of
from perfkit.runtime.machine import Machine

TEXT = """\
def program(n, m, A: "float64[n, m]", B: "float64[n, m]"):
    for i in range(n):
        for j in range(m):
            B[i, j] = 0.5 * A[i, j]
    for i in range(n):
        for j in range(m):
            A[i, j] = B[i, j] + 1.0
"""
SCRIPTS = ("", "Parallelize(i)", "Interchange(i, j)", "Tile(i=8, j=16)", "Vectorize(j, 4)",
           "Fuse(i, i_2)", "Parallelize(i)\nVectorize(j, 4)", "Nonsense(3)")  # fmt: skip
SMALL = Recipe(width=16, heads=2, layers=1, epochs=6, rows=16, rate=3e-3, dropout=0.0)


def groups() -> list[Group]:
    device = Device.of(Machine.detect(), 2)
    found = []
    for k in range(8):
        sample = Sample(0, k, "jacobi", TEXT, (("n", 20 + 9 * k), ("m", 40)), "strict")
        rows = [
            Row(s, "original" if not s else "random", "ok", (1e-4 * (1 + j) * (k + 1), 1.0))
            for j, s in enumerate(SCRIPTS)
        ]  # fmt: skip
        group = group_of(Entry(sample, tuple(rows)), device)
        assert group is not None
        found.append(group)
    return found


GROUPS = groups()


def test_a_script_that_no_longer_applies_is_left_out() -> None:
    assert all(len(g.tokens) == len(SCRIPTS) - 1 == len(g.seconds) for g in GROUPS)
    assert all(g.original == 0 and g.seconds[0] < g.seconds[1] for g in GROUPS)


def test_torch_and_numpy_compute_the_same() -> None:
    network = Network(SMALL, scales_of([t for g in GROUPS for t in g.tokens]), seed=3).eval()
    with torch.no_grad():
        for value in network.w.values():
            value += 0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    data = Rows(GROUPS[:3])
    batch = data.batch(np.arange(len(data.tokens)))
    tokens = [t for g in GROUPS[:3] for t in g.tokens]
    assert network.export().predict(tokens) == pytest.approx(
        network(batch).detach().numpy(), abs=1e-4
    )


def test_interrupted_training_ends_where_it_would_have(tmp_path: Path) -> None:
    losses: list[float] = []
    whole = train_tree.train(GROUPS, SMALL, 0, tmp_path / "a", lambda e, x: losses.append(x))
    assert losses[-1] < losses[0]

    class Stop(Exception):
        pass

    def stop(epoch: int, loss: float) -> None:
        if epoch == 3:
            raise Stop

    with pytest.raises(Stop):
        train_tree.train(GROUPS, SMALL, 0, tmp_path / "b", stop)
    again = train_tree.train(GROUPS, SMALL, 0, tmp_path / "b", lambda e, x: None)
    for name, value in whole.weights.items():
        np.testing.assert_allclose(again.weights[name], value, atol=1e-5, err_msg=name)


def test_boosted_trees_are_those_of_scikit_learn() -> None:
    found = train_boosted.train(GROUPS, 0, trees=20)
    target = np.concatenate([g.target for g in GROUPS])
    got = np.concatenate([found.predict(g.tokens) for g in GROUPS])
    assert np.abs(got - target).mean() < np.abs(target - target.mean()).mean()


def test_the_baseline_learns_speedups() -> None:
    losses: list[float] = []
    network = train_looper.train(GROUPS, 0, 8, lambda e, x: losses.append(x), programs=2)
    assert losses[-1] < losses[0]
    assert train_looper.predict(network, GROUPS[0]).shape == GROUPS[0].seconds.shape


def test_the_baseline_sees_each_schedule_alone() -> None:
    """Loops, statements and words of a batch are told apart."""
    batch = [x for g in GROUPS[:3] for x in g.looper]
    network = train_looper.Looper(train_looper.Scales.of(batch))
    with torch.no_grad():
        together = network(batch)
        alone = torch.cat([network([x]) for x in batch])
    assert len(set(alone.tolist())) > 10
    torch.testing.assert_close(together, alone)


def test_what_is_written_is_what_was_best(tmp_path: Path) -> None:
    marked = [
        Group(**{**vars(g), "split": "valid" if k < 2 else "train"}) for k, g in enumerate(GROUPS)
    ]
    out = tmp_path / "w.safetensors"
    told: list[str] = []
    found = fit(marked, "hash", out, told.append, members=1, recipe=SMALL)
    assert load(out).meta["data"] == "hash" == found.meta["data"]
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    assert any(line.startswith("kept") for line in told)
    assert all((p > 0).all() for p in predictions(found, marked))
