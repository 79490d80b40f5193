"""How well the cost models predict measured schedules: ``python -m bench.cost_model DIR``.

DIR is a data set of ``perfkit dataset build``. The shipped weights (or ``--weights``) are compared
with the LOOPer baseline, which is trained here on the same training split (needs torch), and with
the analytic roofline with caches (what ``auto`` has without weights), on held-out programs,
held-out families and, with ``--polybench``, what ``bench.cost_model_polybench`` measured. The noise
row predicts a schedule's fastest round by its second fastest. LOOPer predicts speedups; its seconds
take the measured time of the original order, which the others do not see.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.cost_model_polybench import groups as polybench_groups
from perfkit import config
from perfkit.cost import model
from perfkit.cost.device import Device
from perfkit.cost.model import Model
from perfkit.cost.model_boosted import Boosted
from perfkit.cost.model_tree import TreeTransformer
from perfkit.errors import PerfkitError
from perfkit.learn import dataset
from perfkit.learn.example_store import ExampleStore, groups
from perfkit.learn.examples import Group, select
from perfkit.learn.metrics import METRICS, evaluate
from perfkit.runtime.machine import Machine

Array = np.ndarray[Any, Any]
SPLITS = ("random", "families", "polybench")
Table = dict[str, dict[str, dict[str, float]]]


def guess(group: Group) -> Array:
    """Seconds by the analytic model."""
    return np.array([t.roofline * np.exp(t.guess) for t in group.tokens])


def learned(found: Model, group: Group) -> Array:
    return found.predict(group.tokens).seconds(group.tokens)


def score(predicted: Sequence[Array], found: Sequence[Group]) -> dict[str, float]:
    return evaluate(predicted, [g.seconds for g in found], [g.original for g in found])


def table(found: Sequence[Group], shipped: Model, epochs: int) -> Table:
    """{model: {split: {metric: value}}}."""
    rows: Table = {}
    tests = {s: [g for g in select(found, s) if g.original >= 0] for s in SPLITS}
    models = {"main": shipped}
    trees = tuple(m for m in shipped.members if isinstance(m, TreeTransformer))
    boosted = tuple(m for m in shipped.members if isinstance(m, Boosted))
    if trees and boosted:
        models |= {"tree": Model(trees, {}), "boosted": Model(boosted[:1], {})}
    for name, each in models.items():
        rows[name] = {s: score([learned(each, g) for g in t], t) for s, t in tests.items()}
    if epochs:
        train = importlib.import_module("perfkit.learn.train_looper")
        network = train.train(select(found, "train"), 0, epochs, _told)
        rows["looper"] = {
            s: score([train.predict(network, g) for g in t], t) for s, t in tests.items()
        }
    rows["roofline"] = {s: score([guess(g) for g in t], t) for s, t in tests.items()}
    again = {s: [g for g in t if np.isfinite(g.again).all()] for s, t in tests.items()}
    rows["noise"] = {s: score([g.again for g in t], t) for s, t in again.items()}
    return rows


def _told(epoch: int, loss: float) -> None:
    sys.stderr.write(f"looper, epoch {epoch}: {loss:.3f}\n")


def show(rows: Table, counts: dict[str, int]) -> str:
    lines = []
    for split in (s for s in SPLITS if counts[s]):
        lines.append(f"{split} ({counts[split]} programs)".ljust(26) + "".join(
            f"{m:>14}" for m in METRICS
        ))  # fmt: skip
        for name, found in rows.items():
            values = "".join(f"{found[split][m]:14.3f}" for m in METRICS)
            lines.append(f"  {name:24}{values}")
    return "\n".join(lines)


def plot(path: Path, found: Model, tests: Sequence[Group]) -> None:
    """Predicted against measured seconds of all test schedules."""
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(5, 5))
    measured = np.concatenate([g.seconds for g in tests])
    predicted = np.concatenate([learned(found, g) for g in tests])
    axes.loglog(measured, predicted, ".", markersize=2)
    ends = [measured.min(), measured.max()]
    axes.loglog(ends, ends, "k-", linewidth=0.8)
    axes.set_xlabel("measured seconds")
    axes.set_ylabel("predicted seconds")
    figure.savefig(path, dpi=150, bbox_inches="tight")


def curve(found: Sequence[Group], seed: int = 0) -> list[tuple[int, float, float]]:
    """Learning curve of the boosted trees: (programs, mape_median, top1_regret) on "random"."""
    train = importlib.import_module("perfkit.learn.train_boosted")
    known, tests = select(found, "train"), select(found, "random")
    order = np.random.default_rng(seed).permutation(len(known))
    points = []
    for share in (0.125, 0.25, 0.5, 1.0):
        part = [known[k] for k in order[: max(4, round(share * len(known)))]]
        fitted = Model((train.train(part, seed, trees=150),), {})
        scores = score([learned(fitted, g) for g in tests], tests)
        points.append((len(part), scores["mape_median"], scores["top1_regret"]))
    return points


def main() -> None:
    """Print the tables; see ``--help``."""
    parser = argparse.ArgumentParser(description="Accuracy of the cost models.")
    parser.add_argument("folder", type=Path, help="a data set")
    parser.add_argument("--weights", type=Path, default=model.SHIPPED)
    parser.add_argument("--looper-epochs", type=int, default=20, help="0 leaves the baseline out")
    parser.add_argument("--curve", action="store_true", help="also the learning curve")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--polybench", type=Path, metavar="DIR")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    try:
        shipped, rows_of = model.load(args.weights), dataset.load(args.folder)
    except PerfkitError as error:
        parser.exit(1, f"bench.cost_model: {error}\n")
    device = Device.of(Machine.detect(), args.threads)
    store = ExampleStore(config.current().cache_dir / "examples")
    found = groups(rows_of, device, os.cpu_count() or 1, store)
    if args.polybench:
        found += polybench_groups(args.polybench, device)
    rows = table(found, shipped, args.looper_epochs)
    print(show(rows, {s: len(select(found, s)) for s in SPLITS}))
    if args.curve:
        for programs, error, worst in curve(found):
            print(f"{programs:6} programs: mape_median {error:.1f} %, top1_regret {worst:.1f} %")
    if args.plot:
        plot(args.plot, shipped, select(found, "random"))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
