"""What parts of the cost model are worth: ``python -m bench.cost_model_ablations DIR``.

The tree transformer is trained as it is, without the loss on the order of schedules, and without
footprints: the columns that isl's footprints feed are blank, and statements start from their cycles
with all data in the first cache. The boosted trees are trained with and without footprints. All see
the same programs; the table has the splits of ``bench.cost_model``. What the search is worth
without Pluto-like seeds or with another width of the beam, ``bench.polybench --no-pluto-seeds`` and
``--beam-width`` tell. Needs torch and scikit-learn.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.cost_model import SPLITS, Table, learned, score, show
from bench.cost_model_polybench import groups as polybench_groups
from perfkit import config
from perfkit.cost.columns import ACCESS, LOOP, PROGRAM, STATEMENT
from perfkit.cost.device import Device
from perfkit.cost.model import Model, Predictor
from perfkit.cost.tokens import LEAST, Tokens
from perfkit.errors import PerfkitError
from perfkit.learn import dataset, train_boosted, train_tree
from perfkit.learn.example_store import ExampleStore, groups
from perfkit.learn.examples import Group, select
from perfkit.learn.train_tree import Recipe
from perfkit.runtime.machine import Machine

FOOTPRINTS = (
    "bytes", "array", "lines", "all", "visits", "fill", "data", "guess", "share", "serial",
)  # fmt: skip
"""Beginnings of the names of columns that footprints feed."""

COLUMNS = {"program": PROGRAM, "loop": LOOP, "statement": STATEMENT, "access": ACCESS}


def blind(tokens: Tokens, hertz: float) -> Tokens:
    """The features of a schedule without what footprints say."""
    rows = {}
    for kind, names in COLUMNS.items():
        hidden = [k for k, n in enumerate(names) if n.startswith(FOOTPRINTS)]
        rows[kind] = tokens.rows[kind].copy()
        rows[kind][:, hidden] = 0.0
    place = {n.partition(":")[0]: k for k, n in enumerate(STATEMENT)}
    own = tokens.rows["statement"]
    cycles = own[:, place["cycles"]] + own[:, place["instances"]] - own[:, place["threads"]]
    terms = tokens.terms.copy()
    first = 1 + len(rows["loop"])
    seconds = cycles * np.log(2.0) - np.log(hertz * tokens.roofline)
    terms[first : first + len(own)] = np.maximum(seconds, LEAST)
    return replace(tokens, rows=rows, terms=terms)


def without_footprints(found: Sequence[Group], device: Device) -> list[Group]:
    return [replace(g, tokens=tuple(blind(t, device.hertz) for t in g.tokens)) for g in found]


def fitted(name: str, known: Sequence[Group], recipe: Recipe) -> Predictor:
    """The model of one row of the table."""
    if name.startswith("boosted"):
        return train_boosted.train(known, 0)
    recipe = replace(recipe, rank=0.0) if name == "tree, no order" else recipe

    def told(epoch: int, loss: float) -> None:
        sys.stderr.write(f"{name}: epoch {epoch} of {recipe.epochs}, loss {loss:.4f}\n")

    with tempfile.TemporaryDirectory(prefix="perfkit-ablation-") as folder:
        return train_tree.train(known, recipe, 0, Path(folder) / "checkpoint.safetensors", told)


def table(found: Sequence[Group], device: Device, recipe: Recipe) -> Table:
    """{model: {split: {metric: value}}}."""
    hidden = without_footprints(found, device)
    rows: Table = {}
    for name in ("tree", "tree, no order", "tree, no footprints", "boosted",
                 "boosted, no footprints"):  # fmt: skip
        seen = hidden if name.endswith("footprints") else found
        model = Model((fitted(name, select(seen, "train"), recipe),), {})
        tests = {s: [g for g in select(seen, s) if g.original >= 0] for s in SPLITS}
        rows[name] = {s: score([learned(model, g) for g in t], t) for s, t in tests.items()}
    return rows


def main() -> None:
    """Print the table; see ``--help``."""
    parser = argparse.ArgumentParser(description="Ablations of the cost model.")
    parser.add_argument("folder", type=Path, help="a data set")
    parser.add_argument("--polybench", type=Path, metavar="DIR")
    parser.add_argument("--epochs", type=int, default=Recipe().epochs)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    device = Device.of(Machine.detect(), args.threads)
    try:
        entries = dataset.load(args.folder)
    except PerfkitError as error:
        parser.exit(1, f"bench.cost_model_ablations: {error}\n")
    store = ExampleStore(config.current().cache_dir / "examples")
    found = groups(entries, device, os.cpu_count() or 1, store)
    if args.polybench:
        found += polybench_groups(args.polybench, device)
    rows = table(found, device, Recipe(epochs=args.epochs))
    print(show(rows, {s: len(select(found, s)) for s in SPLITS}))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
