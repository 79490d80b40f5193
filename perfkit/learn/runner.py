"""The child process that runs compiled variants: ``python -m perfkit.learn.runner PROGRESS``.

It reads one job per line from stdin (JSON, see :class:`perfkit.learn.measure.Job`) and answers each
with one line. Before every run it notes the variant in the memory-mapped file PROGRESS, so that its
parent knows which one crashed or hangs; writing to a pipe instead would wake the parent up while a
kernel is timed.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from perfkit.runtime.measure import interleaved, time_calls

PROGRESS = struct.Struct("qq")
"""The variant that runs, -1 for none, and a counter of runs."""

LEAST_SECONDS = 3e-4
"""A round repeats short kernels until about this much time has gone by."""

MOST_REPEATS = 15
TOLERANCE = {"float32": 2e-3, "float64": 1e-8}

Array = np.ndarray[Any, Any]


class Progress:
    """The memory that parent and child share."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), PROGRESS.size)
        self._count = 0

    def running(self, variant: int) -> None:
        self._count += 1
        PROGRESS.pack_into(self._map, 0, variant, self._count)

    def read(self) -> tuple[int, int]:
        variant, count = PROGRESS.unpack_from(self._map, 0)
        return int(variant), int(count)


def data(job: dict[str, Any]) -> dict[str, Array]:
    """Arguments by name: between 0.5 and 1.5, square matrices with a dominant diagonal.

    So factors and substitutions neither overflow nor fade into denormal numbers, which would be
    slow for no reason of the schedule.
    """
    rng = np.random.default_rng(job["seed"])
    found: dict[str, Array] = {}
    for name, dtype, shape, _ in job["arrays"]:
        if np.dtype(dtype).kind != "f":
            found[name] = rng.integers(0, 2 if dtype == "bool" else 4, shape).astype(dtype)
            continue
        values = rng.random(shape, dtype=np.dtype(dtype).type) + np.dtype(dtype).type(0.5)
        if len(shape) == 2 and shape[0] == shape[1]:
            values /= np.dtype(dtype).type(shape[0])
            values[np.diag_indices(shape[0])] += 1
        found[name] = values
    return found


def differs(got: Array, want: Array) -> bool:
    """Whether two results differ by more than rounding."""
    if np.array_equal(got, want):
        return False
    with np.errstate(all="ignore"):
        finite = np.isfinite(want)
        if not np.array_equal(finite, np.isfinite(got)):
            return True
        scale = float(np.max(np.abs(want), where=finite, initial=0.0)) or 1.0
        apart = float(np.max(np.abs(got - want), where=finite, initial=0.0))
    return apart > TOLERANCE[str(want.dtype)] * scale


class Bench:
    """One job: the library, its data, and how to run a variant on fresh data."""

    def __init__(self, job: dict[str, Any], progress: Progress) -> None:
        self.progress = progress
        self.library = ctypes.CDLL(job["library"])
        self.pristine = data(job)
        self.memory = {n: a.copy() for n, a in self.pristine.items()}
        # Arrays that are only written need not be restored.
        self.restored = [n for n, _, _, role in job["arrays"] if role == "inout"]
        self.written = [n for n, _, _, role in job["arrays"] if role != "in"]
        self.sizes = np.array(job["sizes"], dtype=np.int64)
        self.scalars = [np.array([0.75], dtype=d) for d in job["scalars"]]
        pointers = [self.sizes.ctypes.data + 8 * k for k in range(len(self.sizes))]
        by_name = {n: a.ctypes.data for n, a in self.memory.items()}
        scalars = iter(self.scalars)
        for kind, name in job["order"]:
            pointers.append(by_name[name] if kind == "array" else next(scalars).ctypes.data)
        self.arguments = (ctypes.c_void_p * max(1, len(pointers)))(*pointers)
        self.address = ctypes.addressof(self.arguments)

    def once(self, variant: int) -> float:
        """Run a variant on the original data; seconds. Raises KernelFailure."""
        for name in self.restored:
            np.copyto(self.memory[name], self.pristine[name])
        function = ctypes.cast(self.library[f"v{variant}_call"], ctypes.c_void_p).value or 0
        self.progress.running(variant)
        seconds = time_calls(function, self.address)[0]
        self.progress.running(-1)
        return seconds

    def clear(self) -> None:
        """Make arrays that are only written hold what no kernel leaves there."""
        for name in self.written:
            if name not in self.restored:
                self.memory[name].fill(-1.0)


def run(job: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Check every variant against the first one, then time those that are right and fast enough."""
    bench = Bench(job, progress)
    variants: list[int] = job["variants"]
    first = variants[0]
    bench.clear()
    bench.once(first)
    expected = {n: bench.memory[n].copy() for n in bench.written}
    baseline = min(bench.once(first) for _ in range(2))
    status, seconds = {first: "ok"}, {first: [baseline]}
    for variant in variants[1:]:
        status[variant], seconds[variant] = _checked(bench, variant, expected, baseline, job)
    if baseline <= job["longest"]:
        ready = [v for v in variants if status[v] == "ok"]
        timers = [_timer(bench, v, seconds[v][0]) for v in ready]
        samples = interleaved(
            timers, job["rounds"], warmup=0, stop_ratio=1e9, lock=False
        )
        for variant, sample in zip(ready, samples, strict=True):
            seconds[variant] = list(sample.seconds)
            if sample.error:
                status[variant] = "failed"
    else:
        status = {v: "too long" if s == "ok" else s for v, s in status.items()}
    return {"status": [status[v] for v in variants], "seconds": [seconds[v] for v in variants]}


def _checked(
    bench: Bench, variant: int, expected: dict[str, Array], baseline: float, job: dict[str, Any]
) -> tuple[str, list[float]]:
    bench.clear()
    try:
        taken = bench.once(variant)
    except RuntimeError:
        return "failed", []
    if any(differs(bench.memory[n], a) for n, a in expected.items()):
        return "wrong", [taken]
    return ("slow" if taken > job["stop"] * baseline else "ok"), [taken]


def _timer(bench: Bench, variant: int, about: float) -> Callable[[], float]:
    repeats = max(1, min(MOST_REPEATS, round(LEAST_SECONDS / max(about, 1e-7))))
    return lambda: min(bench.once(variant) for _ in range(repeats))


def answers(progress: Progress) -> Iterator[str]:
    for line in sys.stdin:
        try:
            yield json.dumps(run(json.loads(line), progress))
        except Exception as error:
            yield json.dumps({"error": f"{type(error).__name__}: {error}"})


def main() -> None:
    for answer in answers(Progress(Path(sys.argv[1]))):
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
