"""Gathering measured Triton mappings on a GPU: ``perfkit dataset build --target triton``.

As on CPUs it alternates between two phases. Worker processes draw programs, map each in several
ways, run every mapping once and compare the results, which compiles all kernels into Triton's
cache on disk. Then they rest, and one process times the mappings of a program in turn. Each
measured program is a shard of its own until the end, so a kill loses at most what is in flight.
Rows have the layout of :mod:`perfkit.learn.dataset`; there is none of the original order, whose
single program would take for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import perfkit
from perfkit import config, log
from perfkit.analysis.dependences import Analysis
from perfkit.codegen.triton import generate_module
from perfkit.cost.device import Gpu
from perfkit.errors import BudgetExceeded, GpuMissing, PerfkitError, ScheduleError
from perfkit.learn import dataset
from perfkit.learn.dataset import Entry, Row
from perfkit.learn.gather import Progress, in_workers
from perfkit.learn.prepare import DRAWING, ISL_OPERATIONS, at_most
from perfkit.learn.programs import Sample, programs
from perfkit.learn.runner import data, differs
from perfkit.learn.source import Program, read
from perfkit.runtime.signature import Signature
from perfkit.runtime.triton_kernel import TritonKernel
from perfkit.runtime.triton_module import TritonSource
from perfkit.runtime.triton_timing import Trial, interleaved
from perfkit.schedule.gpu_mapping import plans
from perfkit.schedule.state import State
from perfkit.search.gpu import Guess, rank

ROUNDS = 3
"""Interleaved timings of each mapping, after one run that warms up."""

LONGEST = 0.1
"""Seconds; what is predicted to take longer is not tried: nothing can stop a kernel."""

WORST = 30.0
"""How many times the best prediction a mapping's may be."""

BEST = 0.4
"""The share of mappings taken from the top of the ranking; the others are drawn."""

SCALE = 4
"""Array extents are this much larger than on CPUs, whose programs a GPU would not notice."""

CHUNK = 64
"""Programs prepared before they are measured."""


@dataclass(frozen=True)
class GpuOptions:
    """``folder`` of the data set, ``seed`` of the programs, mappings per program, ``scale``."""

    folder: Path
    seed: int = 0
    variants: int = 12
    scale: int = SCALE


@dataclass(frozen=True)
class Variant:
    """One mapping of a program: its row, and its module where it may be timed."""

    row: Row
    module: TritonSource | None = None


@dataclass(frozen=True)
class Ready:
    """A program whose mappings agree with each other and wait to be timed."""

    sample: Sample
    mappings: tuple[Variant, ...]
    note: str = ""


@dataclass(frozen=True)
class GpuGatherer:
    """A data set in the making. ``told`` hears of progress after every program."""

    options: GpuOptions
    settings: config.Settings
    told: Callable[[Progress], None]
    progress: Progress = field(default_factory=Progress)

    def build(self, hours: float) -> Progress:
        """Prepare and measure for so long, going on where an earlier run stopped.

        Raises:
            GpuMissing: torch, triton or a GPU is missing.
            DatasetError: the folder cannot be used.
        """
        name = device()
        deadline = time.monotonic() + 3600 * hours
        meta = {"target": "triton", "machine": name, "perfkit": perfkit.__version__}
        done = self._done()
        fresh = (s for s in programs(self.options.seed) if s.number not in done)
        work = partial(prepare_gpu, options=self.options)
        try:
            while time.monotonic() < deadline:
                # timing takes far less than compiling, but must come before the end
                until = deadline - 0.2 * (deadline - time.monotonic())
                chunk = list(in_workers(islice(fresh, CHUNK), work, until))
                self.progress.prepared += len(chunk)
                for ready in chunk:
                    if time.monotonic() >= deadline:
                        break
                    entry = timed(ready, name)
                    dataset.write_shard(self.options.folder, [entry], meta)
                    self.progress.measured(entry)
                    self.told(self.progress)
        except KeyboardInterrupt:
            log.get("learn").warning("interrupted: what is measured is kept; run it again to go on")
        if dataset.shards(self.options.folder):
            dataset.compact(self.options.folder, meta)
        return self.progress

    def _done(self) -> set[int]:
        if not dataset.shards(self.options.folder):
            return set()
        entries = dataset.load(self.options.folder)
        return {e.sample.number for e in entries if e.sample.seed == self.options.seed}


def device() -> str:
    """The GPU's name, or that kernels are interpreted instead. Raises GpuMissing."""
    try:
        import torch
        from triton import knobs
    except ImportError as error:
        raise GpuMissing(f"rows of a GPU need torch and triton ({error})") from error
    if knobs.runtime.interpret:
        return "Triton interpreter"
    if not torch.cuda.is_available():
        raise GpuMissing("dataset build --target triton: torch finds no GPU on this machine")
    return str(torch.cuda.get_device_name())


# -- preparing, in workers -----------------------------------------------------------------------


def prepare_gpu(sample: Sample, options: GpuOptions) -> Ready:
    """Map a program in several ways, run each once, and compare."""
    try:
        with at_most(DRAWING):
            program = read(sample.text)
            sample = enlarged(sample, program, options.scale)
            found = _mapped(sample, program, options)
        return Ready(sample, tuple(_compared(sample, program.signature, found)))
    except PerfkitError as error:
        return Ready(sample, (), f"{type(error).__name__}: {error}".splitlines()[0])


def enlarged(sample: Sample, program: Program, scale: int) -> Sample:
    """The same program with longer arrays; sizes that bound no array stay."""
    extents = {n for a in program.scop.arrays for e in a.shape for n in e.names()}
    sizes = tuple((n, v * scale if n in extents else v) for n, v in sample.sizes)
    return replace(sample, sizes=sizes)


def _mapped(sample: Sample, program: Program, options: GpuOptions) -> list[Variant]:
    analysis = Analysis(ISL_OPERATIONS)
    state = State.start(program.scop, sample.fp)
    guesses = rank(plans(state, analysis), analysis, dict(sample.sizes), Gpu())
    rng = Random(f"{sample.seed}-{sample.number}-gpu")
    found: list[Variant] = []
    for kind, guess in picked(guesses, options.variants, rng):
        try:
            seed = guess.plan.seed()
            module = generate_module(seed.state, program.signature, analysis, seed.script)
        except (BudgetExceeded, ScheduleError):
            found.append(Variant(Row(str(guess.plan.name), kind, "refused")))
        else:
            found.append(Variant(Row(seed.script, kind, "ok"), module))
    return found


def picked(guesses: Sequence[Guess], count: int, rng: Random) -> list[tuple[str, Guess]]:
    """The best-looking mappings and some others; none that would take very long."""
    limit = min(LONGEST, WORST * guesses[0].seconds)
    fit = [g for g in guesses if g.seconds <= limit]
    top = fit[: max(1, round(BEST * count))]
    rest = fit[len(top) :]
    drawn = rng.sample(rest, min(len(rest), count - len(top)))
    return [("seed", g) for g in top] + [("random", g) for g in drawn]


def _compared(
    sample: Sample, signature: Signature, found: Sequence[Variant]
) -> list[Variant]:
    """Run each mapping once on the same data; the first that runs is what the others must equal."""
    result: list[Variant] = []
    want: Mapping[str, Any] = {}
    for mapping in found:
        status = mapping.row.status
        if mapping.module is not None:
            try:
                trial = _trial(mapping.module, signature, sample)
                trial()
                got = _outputs(trial)
            except Exception as error:  # Triton's own classes have no common base with ours
                log.get("learn").warning("%d: %s", sample.number, str(error)[:300])
                status = "failed"
            else:
                want = want or got
                status = "wrong" if any(differs(got[n], want[n]) for n in want) else "ok"
        module = mapping.module if status == "ok" else None
        result.append(Variant(replace(mapping.row, status=status), module))
    return result


# -- timing --------------------------------------------------------------------------------------


def _trial(module: TritonSource, signature: Signature, sample: Sample) -> Trial:
    """One mapping on the data of its program, the same for all mappings."""
    import torch

    sizes = dict(sample.sizes)
    arrays = [
        (p.name, p.dtype, tuple(sizes[e] if isinstance(e, str) else e for e in p.shape), "")
        for p in signature.inputs if p.kind == "array"
    ]  # fmt: skip
    made = data({"seed": sample.number, "arrays": arrays})
    where = "cuda" if torch.cuda.is_available() else "cpu"
    arguments = [
        torch.from_numpy(made[p.name]).to(where) if p.kind == "array" else sizes.get(p.name, 1.25)
        for p in signature.inputs
    ]
    return Trial(TritonKernel(signature, module), arguments)


def _outputs(trial: Trial) -> dict[str, np.ndarray[Any, Any]]:
    inputs = trial.kernel.signature.inputs
    return {
        p.name: v.cpu().numpy() for p, v in zip(inputs, trial.memory, strict=True) if p.written
    }


def timed(ready: Ready, machine: str) -> Entry:
    """The entry of a program: every mapping that agrees, timed in turn."""
    rows = [m.row for m in ready.mappings]
    if not rows:
        return Entry(ready.sample, (), ready.note or "no mapping", machine)
    signature = read(ready.sample.text).signature
    trials = {
        k: _trial(m.module, signature, ready.sample)
        for k, m in enumerate(ready.mappings) if m.module is not None
    }  # fmt: skip
    for k, seconds in zip(trials, interleaved(list(trials.values()), ROUNDS), strict=True):
        rows[k] = replace(rows[k], seconds=seconds)
    return Entry(ready.sample, tuple(rows), ready.note, machine)


__all__ = ["GpuGatherer", "GpuOptions", "Ready", "device", "enlarged", "picked", "prepare_gpu",
           "timed"]  # fmt: skip
