"""Gathering Triton rows in the interpreter, run by ``test_gpu_gather.py``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perfkit import config
from perfkit.learn import dataset, gpu_gather
from perfkit.learn.gather import Progress
from perfkit.learn.gpu_gather import GpuGatherer, GpuOptions, device, prepare_gpu, timed
from perfkit.runtime.triton_module import TritonSource
from tests.learn.test_gpu_gather import SAMPLE


def test_mappings_are_compared_timed_and_stored(tmp_path: Path) -> None:
    ready = prepare_gpu(SAMPLE, GpuOptions(tmp_path, variants=3, scale=2))
    assert [m.row.status for m in ready.mappings] == ["ok"] * 3, ready.note
    assert dict(ready.sample.sizes) == {"n": 10, "m": 18}
    entry = timed(ready, device())
    assert all(len(r.seconds) == gpu_gather.ROUNDS and r.best > 0 for r in entry.timed)
    dataset.write_shard(tmp_path, [entry], {"target": "triton"})
    (again,) = dataset.load(tmp_path)
    assert [r.script for r in again.rows] == [r.script for r in entry.rows]
    assert all("Map" in r.script for r in again.rows)


def test_a_mapping_that_computes_something_else_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    real = gpu_gather.generate_module
    made: list[str] = []

    def spoiled(*args: Any) -> TritonSource:
        module = real(*args)
        made.append(module.text)
        more = "    y.add_(1.0)\n" if len(made) > 1 else ""
        return replace(module, text=module.text + more)

    monkeypatch.setattr(gpu_gather, "generate_module", spoiled)
    ready = prepare_gpu(SAMPLE, GpuOptions(Path(), variants=2, scale=1))
    assert [m.row.status for m in ready.mappings] == ["ok", "wrong"]
    assert ready.mappings[1].module is None


def test_it_builds_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_gather, "programs", lambda seed: iter([SAMPLE]))
    monkeypatch.setattr(gpu_gather, "in_workers", lambda samples, work, until: map(work, samples))
    told: list[int] = []

    def enough(progress: Progress) -> None:
        told.append(progress.programs)
        raise KeyboardInterrupt

    gatherer = GpuGatherer(GpuOptions(tmp_path, variants=2, scale=1), config.current(), enough)
    assert gatherer.build(0.01).programs == 1 and told == [1]
    assert gatherer._done() == {SAMPLE.number}
