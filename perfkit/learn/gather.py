"""Gathering measured schedules: ``perfkit dataset build``.

It alternates between two phases. Worker processes prepare programs on all cores; then they rest,
and the programs are measured one at a time, alone on the machine. Every prepared program and every
measured one is a file of its own until the end, so a kill loses at most what is in flight, and the
same command goes on from there.
"""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from multiprocessing import get_context
from typing import Any, TypeVar

import perfkit
from perfkit import config, log
from perfkit.errors import DatasetError, LockTimeout, MeasureError
from perfkit.learn import dataset
from perfkit.learn.dataset import Entry, Row
from perfkit.learn.measure import Outcome, Runner
from perfkit.learn.prepare import Options, Prepared, load, pending, prepare
from perfkit.learn.programs import Sample, programs
from perfkit.runtime.build import Toolchain
from perfkit.runtime.machine import Machine
from perfkit.runtime.measure import machine_lock

T = TypeVar("T")

CHUNK = 96
"""Programs prepared before they are measured; the cores wait for the last one."""

FRUITLESS = 4
"""Deaths in a row after which something is wrong with more than the programs."""

LONGEST = 60.0
"""Seconds after which the worker of a program is killed: isl's C code hears of no other signal."""


@dataclass
class Progress:
    """What this run has done; ``spent`` adds up the seconds of all processes by phase."""

    programs: int = 0
    schedules: int = 0
    bad: int = 0
    prepared: int = 0
    started: float = field(default_factory=time.monotonic)
    spent: dict[str, float] = field(default_factory=dict)

    def measured(self, entry: Entry) -> None:
        self.programs += 1
        self.schedules += len(entry.timed)
        self.bad += sum(r.status in ("wrong", "crashed", "hung", "failed") for r in entry.rows)

    def add(self, spent: dict[str, float]) -> None:
        for phase, seconds in spent.items():
            self.spent[phase] = self.spent.get(phase, 0.0) + seconds

    def __str__(self) -> str:
        hours = max((time.monotonic() - self.started) / 3600, 1e-9)
        phases = ", ".join(f"{p} {s:.0f} s" for p, s in self.spent.items())
        return (
            f"{self.prepared} programs prepared, {self.programs} measured, {self.schedules} "
            f"schedules ({self.schedules / hours:.0f} per hour; {phases}), {self.bad} bad results"
        )


@dataclass(frozen=True)
class Gatherer:
    """A data set in the making. ``told`` hears of progress after every program."""

    options: Options
    settings: config.Settings
    told: Callable[[Progress], None]
    progress: Progress = field(default_factory=Progress)

    def build(self, hours: float) -> Progress:
        """Prepare and measure for so long, going on where an earlier run stopped.

        Ctrl-C ends it like the clock does. Raises DatasetError when the folder cannot be used.
        """
        deadline = time.monotonic() + 3600 * hours
        try:
            self.measure(deadline)
            while time.monotonic() < deadline:
                self.prepare(CHUNK, deadline)
                self.measure(deadline)
        except KeyboardInterrupt:
            log.get("learn").warning("interrupted: what is measured is kept; run it again to go on")
        dataset.compact(self.options.folder, self._meta())
        return self.progress

    def prepare(self, count: int, deadline: float) -> None:
        """Make the next programs of the stream ready, on all cores."""
        self._make_folder()
        done = self._done()
        fresh = (s for s in programs(self.options.seed) if s.number not in done)
        work = partial(prepare, options=self.options, settings=self.settings)
        for made in in_workers(islice(fresh, count), work, deadline, self._lost, LONGEST):
            self.progress.prepared += 1
            self.progress.add(made.spent)
            self.told(self.progress)

    def _lost(self, sample: Sample) -> None:
        """Record that a program cannot be prepared, so that no later run tries again."""
        entry = Entry(sample, (), f"its worker died, or took more than {LONGEST:.0f} s")
        dataset.write_shard(self.options.folder, [entry], self._meta())

    def measure(self, deadline: float) -> None:
        """Measure what is ready, alone on the machine."""
        machine, meta = Machine.detect().key(), self._meta()
        with Runner() as first, Runner() as second:
            for place in pending(self.options):
                if time.monotonic() >= deadline:
                    return
                start = time.perf_counter()
                try:
                    prepared = load(place)
                except DatasetError as error:
                    log.get("learn").warning("left out: %s", error)
                else:
                    try:
                        with machine_lock(max(0.0, deadline - time.monotonic())):
                            entry = finish(prepared, (first, second), machine)
                    except LockTimeout:
                        return  # somebody else has measured until the end
                    dataset.write_shard(self.options.folder, [entry], meta)
                    self.progress.measured(entry)
                shutil.rmtree(place, ignore_errors=True)
                self.progress.add({"runs": time.perf_counter() - start})
                self.told(self.progress)

    def _make_folder(self) -> None:
        try:
            self.options.pending.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatasetError(f"{self.options.folder}: cannot be made ({error})") from error

    def _done(self) -> set[int]:
        found = {int(p.name) for p in pending(self.options)}
        if dataset.shards(self.options.folder):
            entries = dataset.load(self.options.folder)
            found |= {e.sample.number for e in entries if e.sample.seed == self.options.seed}
        return found

    def _meta(self) -> dict[str, Any]:
        toolchain = Toolchain.detect(self.settings)
        return {
            "machine": Machine.detect().key(), "compiler": toolchain.version,
            "flags": " ".join(toolchain.flags), "threads": self.options.threads,
            "perfkit": perfkit.__version__,
        }  # fmt: skip


def finish(prepared: Prepared, runners: Sequence[Runner], machine: str) -> Entry:
    """Measure a prepared program, all rounds in each of the runners one after the other.

    How long threads take to meet differs between processes by factors, and stays the same within
    one; the fastest round of several processes is what the schedule can do.
    """
    if prepared.job is None:
        return Entry(prepared.sample, tuple(prepared.rows), prepared.note, machine)
    note = ""
    found: dict[int, Outcome] = {}
    try:
        for runner in runners:
            for k, outcome in runner.measure(prepared.job).items():
                known = found.setdefault(k, outcome)
                if known is not outcome and known.status == "ok":
                    found[k] = Outcome(outcome.status, known.seconds + outcome.seconds)
        if found[0].status == "too long":
            note = "the original takes too long"
    except MeasureError as error:
        note, found = str(error).partition(": ")[2], {}
    rows = list(prepared.rows)
    for k, outcome in found.items():
        rows[k] = Row(rows[k].script, rows[k].kind, outcome.status, outcome.seconds)
    return Entry(prepared.sample, tuple(rows) if found else (), note, machine)


# -- workers -----------------------------------------------------------------------------------


def in_workers(
    samples: Iterator[Sample], work: Callable[[Sample], T], deadline: float,
    lost: Callable[[Sample], None] = lambda sample: None, longest: float = 600.0,
) -> Iterator[T]:  # fmt: skip
    """What ``work`` makes of programs, on all cores, as it gets ready, until the deadline.

    A worker that takes ``longest`` seconds for one ends. When one does, or dies otherwise,
    ``lost`` hears of the programs that were in the making. Raises DatasetError when workers die
    FRUITLESS times in a row without a result.
    """
    context, workers = get_context("spawn"), os.cpu_count() or 1
    again: list[Sample] = []
    fruitless = 0
    more = True
    while more and time.monotonic() < deadline:
        enough = context.RawValue("b", 0)  # an Event's set waits for waiters, dead ones too
        pool = ProcessPoolExecutor(workers, context, _start_worker, (os.getpid(), enough))
        waiting: dict[Future[T], Sample] = {}
        samples, again = chain(again, samples), []
        try:
            while True:
                for sample in islice(samples, 2 * workers - len(waiting)):
                    waiting[pool.submit(_bounded, work, sample, longest)] = sample
                left = deadline - time.monotonic()
                more = bool(waiting)
                if not more or left <= 0:
                    break
                done, _ = wait(waiting, left, return_when=FIRST_COMPLETED)
                for future in done:
                    found = future.result()
                    del waiting[future]
                    fruitless = 0
                    yield found
        except BrokenProcessPool:
            # programs are begun in the order in which they were handed over
            begun, again = list(waiting.values())[:workers], list(waiting.values())[workers:]
            log.get("learn").warning("a worker died; %d programs are left out", len(begun))
            for sample in begun:
                lost(sample)
            fruitless += 1
            if fruitless == FRUITLESS:
                raise DatasetError(
                    f"workers died {fruitless} times in a row without preparing a program: is "
                    "there enough memory? `perfkit doctor --full` tests the installation"
                ) from None
        finally:
            enough.value = 1
            pool.shutdown(wait=True, cancel_futures=True)


def _bounded(work: Callable[[Sample], T], sample: Sample, longest: float) -> T:
    """End this process when ``work`` takes too long, wherever it is."""
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(longest, exit=True, file=nowhere)
        try:
            return work(sample)
        finally:
            faulthandler.cancel_dump_traceback_later()


def _start_worker(parent: int, enough: Any) -> None:
    """Leave Ctrl-C to the parent, and end with it, or when it has enough, whatever runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent and not enough.value:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


__all__ = ["Gatherer", "Progress", "finish", "in_workers"]
