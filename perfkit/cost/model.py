"""The learned cost model: predicts log(seconds / roofline) of schedules, in NumPy alone.

A model file is one safetensors file with the weights, and JSON in its metadata: the kind of model,
the feature schema, the device kind, a hash of the training data, and scales. Kinds are "tree" (a
transformer over the tokens of :mod:`perfkit.cost.features`), "boosted" (gradient-boosted trees over
pooled features) and "mean" (several of them).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from perfkit.cost.columns import SCHEMA
from perfkit.cost.model_boosted import Boosted
from perfkit.cost.model_tree import TreeTransformer
from perfkit.cost.tokens import Tokens
from perfkit.errors import WeightsError

Array = np.ndarray[Any, Any]

SHIPPED = Path(__file__).parent / "weights" / "cpu.safetensors"


@dataclass(frozen=True)
class Prediction:
    """``log_ratio``: natural log of seconds over the roofline; ``spread``: one deviation of it."""

    log_ratio: Array
    spread: Array

    def seconds(self, tokens: Sequence[Tokens]) -> Array:
        """float64 [schedules]."""
        lines = np.asarray([t.roofline for t in tokens])
        return np.exp(self.log_ratio) * lines


class Predictor(Protocol):
    """A model with its weights: float [schedules] of log(seconds / roofline)."""

    def predict(self, tokens: Sequence[Tokens]) -> Array: ...


@dataclass(frozen=True)
class Model:
    """Members whose mean is the prediction, and what they were trained on.

    ``meta["deviation"]`` is how far predictions and times lie apart between schedules of a program
    (one deviation of their logarithm), which adds to what the members disagree by. ``bias`` and
    ``slope`` calibrate the mean for another machine, and ``linear`` (float
    [WIDTHS["program"]], or None) corrects the linear term of the program's features:
    ``bias + slope * mean + features @ linear``.
    """

    members: tuple[Predictor, ...]
    meta: Mapping[str, Any]
    bias: float = 0.0
    slope: float = 1.0
    linear: Array | None = None

    @property
    def name(self) -> str:
        """Which weights these are, calibration included: part of the keys of stored schedules."""
        linear = [] if self.linear is None else self.linear.round(9).tolist()
        text = json.dumps([dict(self.meta), self.bias, self.slope, linear], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def predict(self, tokens: Sequence[Tokens]) -> Prediction:
        """Predict many schedules at once: milliseconds for tens, well under a second for 500."""
        if not tokens:
            return Prediction(np.zeros(0), np.zeros(0))
        each = np.stack([m.predict(tokens) for m in self.members])
        found = self.bias + self.slope * each.mean(0)
        if self.linear is not None:
            found = found + np.stack([t.rows["program"][0] for t in tokens]) @ self.linear
        return Prediction(found, np.hypot(each.std(0), float(self.meta.get("deviation", 0.0))))


MEMBERS: Mapping[str, type[TreeTransformer] | type[Boosted]] = {
    "tree": TreeTransformer, "boosted": Boosted
}  # fmt: skip


def save(path: Path, members: Sequence[TreeTransformer | Boosted], meta: Mapping[str, Any]) -> None:
    """Write a model; ``meta`` needs "data" (hash) and "device" (kind)."""
    arrays: dict[str, Array] = {}
    kinds = []
    for k, member in enumerate(members):
        kinds.append(next(n for n, c in MEMBERS.items() if isinstance(member, c)))
        arrays |= {f"{k}.{n}": np.ascontiguousarray(a) for n, a in member.arrays().items()}
    text = json.dumps({**meta, "schema": SCHEMA, "members": kinds}, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(arrays, path, {"perfkit": text})


def load(path: Path = SHIPPED) -> Model:
    """Read a model.

    Raises WeightsError when the file is missing or damaged, or has another feature schema.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            meta = json.loads((file.metadata() or {}).get("perfkit", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as weights ({error})") from error
    if meta.get("schema") != SCHEMA:
        raise WeightsError(
            f"{path}: trained on feature schema {meta.get('schema')}, this perfkit has {SCHEMA}; "
            "train again with perfkit train"
        )
    try:
        members = tuple(
            MEMBERS[kind].of(
                {n.partition(".")[2]: a for n, a in arrays.items() if n.startswith(f"{k}.")}
            )
            for k, kind in enumerate(meta["members"])
        )
    except (KeyError, IndexError, ValueError) as error:
        raise WeightsError(f"{path}: lacks weights ({error}); train again") from error
    return Model(members, meta)


__all__ = ["SHIPPED", "Model", "Prediction", "Predictor", "load", "save"]
