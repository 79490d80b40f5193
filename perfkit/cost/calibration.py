"""Fitting the learned model to a machine that its weights have not seen.

A calibration is a bias, a slope and a ridge-regularised correction of the model's linear term on
the program's features. It is a small JSON file in the cache folder that says for which machine and
for which weights it was fitted; for others it is not used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from perfkit import config, log
from perfkit.cost.columns import WIDTHS
from perfkit.cost.model import Model
from perfkit.cost.scorer import shipped
from perfkit.cost.tokens import Tokens
from perfkit.errors import WeightsError
from perfkit.runtime.machine import Machine

Array = np.ndarray[Any, Any]

FORMAT = 1
RIDGE = 30.0
"""Weight of the correction's square, against errors of standardised features: a few programs only
shift the model, hundreds may bend it."""


@dataclass(frozen=True)
class Calibration:
    """``bias + slope * prediction + features @ linear``, fitted on ``machine`` for ``weights``.

    ``before`` and ``after`` are median absolute errors of the log prediction on the data that it
    was fitted to, ``schedules`` how many those are.
    """

    machine: str
    weights: str
    bias: float
    slope: float
    linear: tuple[float, ...]
    schedules: int
    before: float
    after: float

    def applied(self, model: Model) -> Model:
        return replace(
            model, bias=self.bias, slope=self.slope, linear=np.asarray(self.linear)
        )


def fit(
    model: Model, tokens: Sequence[Tokens], seconds: Array, machine: str, ridge: float = RIDGE
) -> Calibration:
    """Fit to measured ``seconds`` (float64 [schedules]).

    Raises WeightsError with fewer than ten schedules.
    """
    if len(tokens) < 10:
        raise WeightsError(f"{len(tokens)} measured schedules are too few to calibrate with")
    plain = replace(model, bias=0.0, slope=1.0, linear=None)
    predicted = plain.predict(tokens).log_ratio
    target = np.log(seconds / np.asarray([t.roofline for t in tokens]))
    # A slope needs spread to be told from a bias; one outside [0.5, 2] would be noise.
    centred = predicted - predicted.mean()
    moment = float(centred @ centred) + 1e-9
    slope = float(np.clip(centred @ (target - target.mean()) / moment, 0.5, 2.0))
    rows = np.stack([t.rows["program"][0] for t in tokens]).astype(np.float64)
    mean, scale = rows.mean(0), rows.std(0)
    usable = scale > 1e-6
    scale = np.where(usable, scale, 1.0)
    standard = (rows - mean) / scale * usable
    rest = target - slope * predicted
    bias = float(np.median(rest))
    gram = standard.T @ standard + ridge * np.eye(rows.shape[1])
    linear = np.linalg.solve(gram, standard.T @ (rest - bias)) / scale
    bias -= float(mean @ linear)
    found = Calibration(
        machine, plain.name, bias, slope, tuple(map(float, linear)), len(tokens),
        float(np.median(np.abs(target - predicted))), 0.0,
    )  # fmt: skip
    after = found.applied(model).predict(tokens).log_ratio
    return replace(found, after=float(np.median(np.abs(target - after))))


def path_of(machine: str, settings: config.Settings) -> Path:
    """Where the calibration for a machine is stored."""
    digest = hashlib.sha256(machine.encode()).hexdigest()[:16]
    return settings.cache_dir / f"calibration-{digest}.json"


def save(found: Calibration, settings: config.Settings) -> Path:
    """Write a calibration in place of an older one. Raises WeightsError."""
    path = path_of(found.machine, settings)
    aside = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside.write_text(json.dumps({"format": FORMAT, **vars(found)}, indent=1) + "\n")
        aside.replace(path)
    except OSError as error:
        raise WeightsError(f"{path}: the calibration cannot be written ({error})") from error
    return path


def load(machine: str, settings: config.Settings) -> Calibration | None:
    """The calibration of a machine; None, with a message, when it cannot be used."""
    path = path_of(machine, settings)
    if not path.exists():
        return None
    try:
        plain = json.loads(path.read_text())
        if plain.pop("format") != FORMAT:
            raise ValueError("another version of perfkit wrote it")
        found = Calibration(**{**plain, "linear": tuple(map(float, plain["linear"]))})
        if len(found.linear) != WIDTHS["program"]:
            raise ValueError("it is for other features")
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.get("search").warning(
            "%s: not used (%s): run `perfkit calibrate` again", path, error
        )
        return None
    return found


def shipped_for(machine: Machine, settings: config.Settings) -> Model | None:
    """The shipped weights, calibrated for this machine where that was done; None without any."""
    model = shipped()
    if model is None:
        return None
    found = load(machine.key(), settings)
    if found is None or found.weights != model.name:
        return model
    return found.applied(model)


__all__ = ["Calibration", "fit", "load", "path_of", "save", "shipped_for"]
