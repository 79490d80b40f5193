"""Measuring the variants of a program in a child process that may crash or hang."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from perfkit import log
from perfkit.errors import MeasureError
from perfkit.ir.scop import Scop
from perfkit.learn.runner import PROGRESS, Progress
from perfkit.runtime.signature import Signature

STARTING = 60.0
"""Seconds that the child may take between runs: to start, to make data, to compare results."""

STATUSES = (
    "ok", "slow", "wrong", "crashed", "hung", "failed", "not compiled", "refused", "too long"
)  # fmt: skip
"""What became of a variant.

Slow ones took over ``stop`` times the original and were not timed further; refused ones the code
generator did not take; the original of a "too long" one exceeds what a data set wants to wait for.
"""


@dataclass(frozen=True)
class Job:
    """What to run and how.

    ``variants`` are entry points ``v<k>_call`` of ``library``; the first is the original.
    ``rounds`` interleaved rounds are timed, ``stop`` bounds a variant's time relative to the
    original's, ``longest`` the original's in seconds.
    """

    library: Path
    variants: tuple[int, ...]
    sizes: tuple[int, ...]
    arrays: tuple[tuple[str, str, tuple[int, ...], str], ...]
    scalars: tuple[str, ...]
    order: tuple[tuple[str, str], ...]
    seed: int = 0
    rounds: int = 3
    stop: float = 20.0
    longest: float = 0.02

    @staticmethod
    def of(
        library: Path, variants: Sequence[int], scop: Scop, signature: Signature,
        sizes: Mapping[str, int],
    ) -> Job:  # fmt: skip
        written, read = scop.written, scop.read
        arrays = []
        for p in signature.parameters:
            if p.kind == "array":
                role = "in" if p.name not in written else "inout" if p.name in read else "out"
                shape = tuple(sizes[e] if isinstance(e, str) else e for e in p.shape)
                arrays.append((p.name, p.dtype, shape, role))
        others = [p for p in signature.parameters if p.kind != "size"]
        return Job(
            library, tuple(variants), tuple(sizes[n] for n in signature.sizes), tuple(arrays),
            tuple(p.dtype for p in others if p.kind == "scalar"),
            tuple((p.kind, p.name) for p in others),
        )  # fmt: skip

    def text(self, skip: frozenset[int] = frozenset()) -> str:
        kept = [v for v in self.variants if v not in skip]
        return json.dumps({**vars(self), "library": str(self.library), "variants": kept})


@dataclass(frozen=True)
class Outcome:
    """Of one variant: a word of STATUSES, and the seconds of each round."""

    status: str
    seconds: tuple[float, ...] = ()


class Runner:
    """A child process for measuring, started when needed and again after a crash."""

    def __init__(self, patience: float = 6.0) -> None:
        """``patience``: seconds that one run of one variant may take."""
        self.patience = patience
        self._folder = tempfile.TemporaryDirectory(prefix="perfkit-learn-")
        self._path = Path(self._folder.name) / "progress"
        self._path.write_bytes(PROGRESS.pack(-1, 0))
        self._progress = Progress(self._path)
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.stop()
        self._folder.cleanup()

    def stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()
            self._child = None

    def measure(self, job: Job) -> dict[int, Outcome]:
        """The outcome of every variant of the job.

        Raises MeasureError when the original itself crashes, hangs or fails.
        """
        found: dict[int, Outcome] = {}
        while True:
            answer = self._ask(job.text(frozenset(found)))
            if isinstance(answer, dict):
                if "error" in answer:
                    why = answer["error"]
                    raise MeasureError(f"{job.library}: the original cannot be run: {why}")
                left = [v for v in job.variants if v not in found]
                for variant, status, seconds in zip(
                    left, answer["status"], answer["seconds"], strict=True
                ):
                    found[variant] = Outcome(status, tuple(seconds))
                return found
            variant = self._progress.read()[0]
            if variant == job.variants[0] or variant not in job.variants or variant in found:
                raise MeasureError(f"{job.library}: the original order has {answer}")
            log.get("learn").warning("%s: variant %d has %s", job.library, variant, answer)
            found[variant] = Outcome(answer)

    def _ask(self, job: str) -> Any:
        """The answer; "crashed" or "hung" when there is none."""
        child = self._start()
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(job + "\n")
            child.stdin.flush()
        except BrokenPipeError:
            self.stop()
            return "crashed"
        last, since = self._progress.read(), time.monotonic()
        while not select.select([child.stdout], [], [], 0.5)[0]:
            now = self._progress.read()
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > (STARTING if now[0] < 0 else self.patience):
                self.stop()
                return "hung"
        line = child.stdout.readline()
        if not line:
            self.stop()
            return "crashed"
        return json.loads(line)

    def _start(self) -> subprocess.Popen[str]:
        if self._child is None or self._child.poll() is not None:
            self.stop()
            self._progress.running(-1)
            self._child = subprocess.Popen(
                [sys.executable, "-m", "perfkit.learn.runner", str(self._path)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, env={**os.environ, "OMP_DISPLAY_ENV": "false"},
            )  # fmt: skip
        return self._child


__all__ = ["STATUSES", "Job", "Outcome", "Runner"]
