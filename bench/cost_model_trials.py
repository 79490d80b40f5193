"""Equal chances for the kinds of cost model: ``python -m bench.cost_model_trials DIR``.

Every kind (the tree transformer, boosted trees, the LOOPer baseline) gets as many trials: settings
drawn at random around its defaults, the first being the defaults themselves, trained on the same
programs of the "train" split and judged on the same "valid" split, by the median error and the cost
of following the best prediction, both in per cent. LOOPer's seconds take the measured time of the
original order, which the others do not see. Needs torch and scikit-learn.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from perfkit import config
from perfkit.cost.device import Device
from perfkit.cost.model import Model
from perfkit.errors import PerfkitError
from perfkit.learn import dataset, train_boosted, train_looper, train_tree
from perfkit.learn.example_store import ExampleStore, groups
from perfkit.learn.examples import Group, select
from perfkit.learn.metrics import evaluate
from perfkit.learn.train_tree import Recipe
from perfkit.runtime.machine import Machine

Array = np.ndarray[Any, Any]
Settings = dict[str, Any]
Predict = Callable[[Group], Array]


@dataclass(frozen=True)
class Trial:
    """One training: ``error`` is what the kinds are compared by."""

    kind: str
    settings: Settings
    seconds: float
    scores: Mapping[str, float]

    @property
    def error(self) -> float:
        return self.scores["mape_median"] + self.scores["top1_regret"]


def draw(kind: str, rng: Random) -> Settings:
    """Settings of one trial of a kind."""

    def about(low: float, high: float) -> float:
        return float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.2g}")

    if kind == "tree":
        return {
            "rate": about(3e-4, 3e-3), "decay": about(1e-3, 1e-1),
            "rank": rng.choice((0.1, 0.5, 1.0)),
            "dropout": rng.choice((0.0, 0.05, 0.1)), "width": rng.choice((64, 96, 128)),
            "layers": rng.choice((2, 3)), "rows": rng.choice((128, 256, 512)),
        }  # fmt: skip
    if kind == "boosted":
        return {
            "rate": about(0.02, 0.15), "trees": rng.choice((200, 400, 800)),
            "leaves": rng.choice((15, 31, 63)), "least": rng.choice((5, 10, 20, 40)),
            "share": rng.choice((0.2, 0.4, 0.7)),
        }  # fmt: skip
    return {
        "rate": about(3e-4, 3e-3), "decay": about(1e-3, 1e-1), "programs": rng.choice((4, 8, 16)),
    }  # fmt: skip


def fitted(
    kind: str, settings: Settings, known: Sequence[Group], epochs: int, seed: int
) -> Predict:
    """A trained model as a function of a program's schedules to seconds."""
    if kind == "looper":
        network = train_looper.train(known, seed, epochs, _quiet, **settings)
        return lambda group: train_looper.predict(network, group)
    if kind == "boosted":
        model = Model((train_boosted.train(known, seed, **settings),), {})
    else:
        recipe = replace(Recipe(epochs=epochs), **settings)
        with tempfile.TemporaryDirectory(prefix="perfkit-trial-") as folder:
            path = Path(folder) / "checkpoint.safetensors"
            model = Model((train_tree.train(known, recipe, seed, path, _quiet),), {})
    return lambda group: model.predict(group.tokens).seconds(group.tokens)


def run(
    kinds: Sequence[str], known: Sequence[Group], tests: Sequence[Group], count: int, epochs: int,
    seed: int, told: Callable[[Trial], None],
) -> list[Trial]:  # fmt: skip
    """``count`` trials of every kind."""
    found = []
    for kind in kinds:
        rng = Random(f"{seed}-{kind}")
        for k in range(count):
            settings = draw(kind, rng) if k else {}
            began = time.monotonic()
            predict = fitted(kind, settings, known, epochs, seed)
            scores = evaluate(
                [predict(g) for g in tests], [g.seconds for g in tests], [g.original for g in tests]
            )
            found.append(Trial(kind, settings, time.monotonic() - began, scores))
            told(found[-1])
    return found


def _quiet(epoch: int, loss: float) -> None:
    """Trials say nothing between epochs."""


def _show(trial: Trial) -> None:
    settings = ", ".join(f"{n} {v}" for n, v in trial.settings.items()) or "defaults"
    print(f"{trial.kind:8} {trial.error:7.2f} {trial.seconds:6.0f} s  {settings}", flush=True)


def main() -> None:
    """Run the trials and print the best of each kind; see ``--help``."""
    parser = argparse.ArgumentParser(description="Equal tuning trials for the cost models.")
    parser.add_argument("folder", type=Path, help="a data set")
    parser.add_argument("--trials", type=int, default=8, help="of each kind")
    parser.add_argument("--kinds", default="tree,boosted,looper")
    parser.add_argument("--programs", type=int, default=400, help="to train on")
    parser.add_argument("--epochs", type=int, default=8, help="of the networks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    try:
        rows = dataset.load(args.folder)
    except PerfkitError as error:
        parser.exit(1, f"bench.cost_model_trials: {error}\n")
    device = Device.of(Machine.detect(), args.threads)
    store = ExampleStore(config.current().cache_dir / "examples")
    splits = [r for r in rows if dataset.split_of(r.sample) in ("train", "valid")]
    found = [g for g in groups(splits, device, os.cpu_count() or 1, store) if g.original >= 0]
    known, tests = select(found, "train"), select(found, "valid")
    if not known or not tests:
        parser.exit(1, "bench.cost_model_trials: too few programs: gather more data\n")
    order = np.random.default_rng(args.seed).permutation(len(known))[: args.programs]
    sys.stderr.write(f"{len(order)} programs to train on, {len(tests)} to judge by\n")
    trials = run(
        args.kinds.split(","), [known[k] for k in order], tests, args.trials, args.epochs,
        args.seed, _show,
    )  # fmt: skip
    for kind in dict.fromkeys(t.kind for t in trials):
        best = min((t for t in trials if t.kind == kind), key=lambda t: t.error)
        print(f"best of {kind}: {best.error:.2f} with {best.settings or 'its defaults'}")
    if args.json:
        plain = [{**vars(t), "scores": dict(t.scores), "error": t.error} for t in trials]
        report = {"data": dataset.fingerprint(rows), "trials": plain}
        args.json.write_text(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
