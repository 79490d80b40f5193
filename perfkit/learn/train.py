"""``perfkit train``: from a data set to weights (needs torch and scikit-learn)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from perfkit.cost import model
from perfkit.cost.model import Model
from perfkit.cost.model_boosted import Boosted
from perfkit.cost.model_tree import TreeTransformer
from perfkit.errors import DatasetError
from perfkit.learn import train_boosted, train_tree
from perfkit.learn.examples import Group, select
from perfkit.learn.metrics import evaluate
from perfkit.learn.train_tree import Recipe

Told = Callable[[str], None]
Array = np.ndarray[Any, Any]


def fit(
    groups: Sequence[Group], data: str, out: Path, told: Told, *, seed: int = 0, members: int = 3,
    recipe: Recipe | None = None,
) -> Model:  # fmt: skip
    """Train all members on the "train" split, keep what is best on "valid", and write ``out``.

    ``data`` is the fingerprint of the data set. Interrupted training goes on at the last epoch:
    checkpoints lie beside ``out`` until it is written.

    Raises DatasetError when a split is empty.
    """
    recipe = recipe or Recipe()
    train, valid = select(groups, "train"), select(groups, "valid")
    if not train or not valid:
        raise DatasetError(
            f"{len(train)} programs to train on, {len(valid)} to choose by: gather more data"
        )
    key = hashlib.sha256(f"{data} {seed} {recipe}".encode()).hexdigest()[:12]
    folder = out.parent / f".{out.stem}-{key}"
    boosted = train_boosted.train(train, seed)
    told(f"boosted: {_text(Model((boosted,), {}), valid)}")
    trees: list[TreeTransformer] = []
    for k in range(members):
        def report(epoch: int, loss: float, k: int = k) -> None:
            told(f"tree {k + 1} of {members}, epoch {epoch} of {recipe.epochs}: loss {loss:.4f}")

        trees.append(
            train_tree.train(train, recipe, seed + k, folder / f"{k}.safetensors", report)
        )
    told(f"tree: {_text(Model(tuple(trees), {}), valid)}")
    choices: dict[str, list[TreeTransformer | Boosted]] = {
        "tree": [*trees], "boosted": [boosted], "both": [*trees, *[boosted] * len(trees)]
    }  # fmt: skip
    scores = {n: _score(Model(tuple(m), {}), valid) for n, m in choices.items()}
    best = min(scores, key=lambda n: scores[n])
    told(f"kept: {best} (validation error by kind: {scores})")
    meta = {"data": data, "device": "cpu", "seed": seed, "kind": best, "recipe": asdict(recipe),
            "programs": len(train), "schedules": sum(len(g.tokens) for g in train),
            "deviation": _deviation(Model(tuple(choices[best]), {}), valid)}  # fmt: skip
    model.save(out, choices[best], meta)
    for path in folder.glob("*"):
        path.unlink()
    if folder.exists():
        folder.rmdir()
    return model.load(out)


def predictions(found: Model, groups: Sequence[Group]) -> list[Array]:
    """Seconds of the schedules of each program."""
    return [found.predict(g.tokens).seconds(g.tokens) for g in groups]


def _score(found: Model, groups: Sequence[Group]) -> float:
    """Median error and regret together, both in per cent."""
    table = evaluate(
        predictions(found, groups), [g.seconds for g in groups], [g.original for g in groups]
    )
    return round(table["mape_median"] + table["top1_regret"], 3)


def _deviation(found: Model, groups: Sequence[Group]) -> float:
    """One deviation of log(predicted / measured) between schedules, the median over programs."""
    pairs = zip(predictions(found, groups), groups, strict=True)
    return round(float(np.median([np.log(p / g.seconds).std() for p, g in pairs])), 4)


def _text(found: Model, groups: Sequence[Group]) -> str:
    table = evaluate(
        predictions(found, groups), [g.seconds for g in groups], [g.original for g in groups]
    )
    return ", ".join(f"{n} {v:.3g}" for n, v in table.items())


__all__ = ["fit", "predictions"]
