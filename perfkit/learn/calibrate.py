"""``perfkit calibrate``: measure a few random programs here and fit the shipped model to them."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from perfkit import config
from perfkit.cost import calibration
from perfkit.cost.calibration import Calibration
from perfkit.cost.device import Device
from perfkit.cost.model import Model
from perfkit.learn import dataset
from perfkit.learn.examples import group_of
from perfkit.learn.gather import Gatherer, Progress
from perfkit.learn.prepare import Options
from perfkit.runtime.machine import Machine

SEED = 777_000
"""Of the programs to calibrate with; no data set uses it."""

VARIANTS = 8
CHUNK = 8


def calibrate(
    model: Model, settings: config.Settings, seconds: float, told: Callable[[Progress], None]
) -> Calibration:
    """Measure for so long and fit. Raises WeightsError when too little could be measured."""
    machine = Machine.detect()
    device = Device.of(machine, settings.threads)
    folder = Path(tempfile.mkdtemp(prefix="perfkit-calibrate-"))
    try:
        gatherer = Gatherer(Options(folder, SEED, VARIANTS, settings.threads), settings, told)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            gatherer.prepare(CHUNK, deadline)
            gatherer.measure(deadline)
        entries = dataset.load(folder) if dataset.shards(folder) else []
        groups = [g for e in entries if (g := group_of(e, device)) is not None]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    tokens = [t for g in groups for t in g.tokens]
    taken = np.concatenate([g.seconds for g in groups]) if groups else np.zeros(0)
    return calibration.fit(model, tokens, taken, machine.key())


__all__ = ["calibrate"]
