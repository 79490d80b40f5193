"""Preparing a program for measuring: draw schedules, generate code, compile; on disk until run.

A prepared program is a folder ``pending/<number>`` of the data set with ``program.json`` and the
shared object. It appears as a whole, so killing the process loses only what was in the making.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from perfkit import config
from perfkit.analysis.dependences import Analysis
from perfkit.codegen.target import Target
from perfkit.cost.analytic import estimate
from perfkit.cost.device import Device
from perfkit.errors import BudgetExceeded, DatasetError, PerfkitError
from perfkit.learn.batch import compile_batch, generate
from perfkit.learn.dataset import Row
from perfkit.learn.measure import Job
from perfkit.learn.programs import Sample
from perfkit.learn.source import read
from perfkit.learn.variants import Variants
from perfkit.runtime.build import Toolchain
from perfkit.runtime.machine import Machine
from perfkit.schedule.state import State
from perfkit.search.auto import tile_sizes

ISL_OPERATIONS = 3_000_000
"""isl's budget per program; the few that need more are not worth the time."""

DRAWING = 20.0
"""Seconds after which a program is left out whose schedules are still being drawn."""

GENERATING = (1.5, 8.0)
"""Seconds for the code of one variant and of all; what takes longer is left out."""


@dataclass(frozen=True)
class Options:
    """``folder`` of the data set, ``seed`` of the programs, ``variants`` per program.

    ``threads`` is how many the kernels use.
    """

    folder: Path
    seed: int = 0
    variants: int = 32
    threads: int = 2

    @property
    def pending(self) -> Path:
        return self.folder / "pending"


@dataclass
class Prepared:
    """A program whose variants wait to be measured.

    ``rows`` has a row for every variant; those that ``job`` runs get their times later. ``note``
    says why there is no job. ``spent`` are the seconds of each phase.
    """

    sample: Sample
    rows: list[Row]
    job: Job | None
    note: str = ""
    spent: dict[str, float] = field(default_factory=dict)


def prepare(sample: Sample, options: Options, settings: config.Settings) -> Prepared:
    """Draw, generate and compile the variants of a program, and store them under ``pending``."""
    prepared = Prepared(sample, [], None)
    library: Path | None = None
    try:
        library = _prepare(prepared, options, settings)
    except PerfkitError as error:
        prepared.note = f"{type(error).__name__}: {error}".splitlines()[0]
    return _store(prepared, options, library)


def _prepare(prepared: Prepared, options: Options, settings: config.Settings) -> Path | None:
    sample, machine, spent = prepared.sample, Machine.detect(), prepared.spent
    device, simd_bytes = Device.of(machine, options.threads), machine.simd_bytes or 16
    sizes = dict(sample.sizes)
    with _clock(spent, "schedules"), at_most(DRAWING):
        program = read(sample.text)
        analysis = Analysis(ISL_OPERATIONS, parallel_reductions=True)

        def rank(state: State) -> float:
            poly = analysis.polyhedra(state.scop)
            return estimate(poly, state.scop, state.tree, sizes, device).seconds

        rng = Random(f"{sample.seed}-{sample.number}-variants")
        start = State.start(program.scop, sample.fp)
        shapes = tile_sizes(device, sizes)
        variants = Variants(start, analysis, simd_bytes, rng, rank, shapes).draw(options.variants)
    texts = []
    target = Target(simd_bytes, options.threads)
    with _clock(spent, "code"):
        began = time.perf_counter()
        for k, variant in enumerate(variants):
            text = "!took too long"
            if time.perf_counter() - began < GENERATING[1]:
                signature = replace(program.signature, name=f"v{k}")
                with at_most(GENERATING[0]):
                    text = generate(variant.state, signature, analysis, target)
            texts.append(text)
    with _clock(spent, "compiler"):
        batch = compile_batch(texts, Toolchain.detect(settings), settings)
    for k, variant in enumerate(variants):
        status = "ok" if k in batch.compiled else "not compiled"
        status = "refused" if texts[k].startswith("!") else status
        prepared.rows.append(Row(variant.script, variant.kind, status))
    if batch.library is None or 0 not in batch.compiled:
        prepared.note = "the original order cannot be compiled"
    else:
        prepared.job = Job.of(
            batch.library, batch.compiled, program.scop, program.signature, sizes
        )
    return batch.library


@contextmanager
def _clock(spent: dict[str, float], phase: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    spent[phase] = spent.get(phase, 0.0) + time.perf_counter() - start


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Interrupt the body with BudgetExceeded when it takes longer (main thread only)."""

    def ring(signum: int, frame: FrameType | None) -> None:
        raise BudgetExceeded(f"took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


# -- on disk -----------------------------------------------------------------------------------


def _store(prepared: Prepared, options: Options, library: Path | None) -> Prepared:
    place = options.pending / f"{prepared.sample.number:06d}"
    aside = options.pending / f".{place.name}.{os.getpid()}"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        if library is not None:
            if prepared.job is not None:
                shutil.move(library, aside / "kernel.so")
                prepared.job = replace(prepared.job, library=place / "kernel.so")
            shutil.rmtree(library.parent, ignore_errors=True)
        (aside / "program.json").write_text(json.dumps(_plain(prepared)))
        shutil.rmtree(place, ignore_errors=True)
        aside.rename(place)
    except OSError as error:
        raise DatasetError(f"{place}: cannot be written ({error})") from error
    return prepared


def _plain(prepared: Prepared) -> dict[str, Any]:
    return {
        "sample": vars(prepared.sample),
        "rows": [[r.script, r.kind, r.status] for r in prepared.rows],
        "job": None if prepared.job is None else json.loads(prepared.job.text()),
        "note": prepared.note,
        "spent": prepared.spent,
    }


def pending(options: Options) -> list[Path]:
    """The prepared programs of this seed that wait, in order."""
    return sorted(p for p in options.pending.glob("[0-9]*") if (p / "program.json").exists())


def load(place: Path) -> Prepared:
    """Read a prepared program back. Raises DatasetError where that fails."""
    try:
        plain = json.loads((place / "program.json").read_text())
        sample = plain["sample"]
        sample["sizes"] = tuple((n, v) for n, v in sample["sizes"])
        job = plain["job"]
        if job is not None:
            job = Job(
                place / "kernel.so", tuple(job["variants"]), tuple(job["sizes"]),
                tuple((n, d, tuple(s), r) for n, d, s, r in job["arrays"]),
                tuple(job["scalars"]), tuple((k, n) for k, n in job["order"]),
            )  # fmt: skip
        rows = [Row(*r) for r in plain["rows"]]
        return Prepared(Sample(**sample), rows, job, plain["note"], plain["spent"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{place}: not a prepared program ({error}): remove it") from error


__all__ = [
    "DRAWING", "ISL_OPERATIONS", "Options", "Prepared", "at_most", "load", "pending", "prepare",
]  # fmt: skip
