"""The parent's end of a worker process: ask, wait for the answer, know when it has come to rest."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Every runtime's own variable for the number of threads; nothing else is set for anybody.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "PERFKIT_THREADS",
)
_ROOT = Path(__file__).resolve().parents[2]


class PeerFailed(Exception):
    """A candidate crashed, hung or answered with an error."""


def environment(threads: int, inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """The workers' environment: the user's, with the same number of threads for everybody."""
    made = dict(os.environ if inherited is None else inherited)
    made.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    made["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *filter(None, [made.get("PYTHONPATH", "")])])
    return made


class Worker:
    """One child process. Close it; it also goes away when the parent does."""

    def __init__(self, name: str, threads: int, log: Path) -> None:
        self.name = name
        self.log = log
        self._pending = b""
        with log.open("wb") as messages:
            # A session of its own: Ctrl-C reaches the parent only, which then ends the workers.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.polybench.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
                env=environment(threads),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, timeout: float, do: str, **details: Any) -> dict[str, Any]:
        """Send a command and return the answer.

        Raises:
            PeerFailed: the worker answered with an error, ended, or took more than ``timeout``
                seconds; in the last two cases it is ended.
        """
        line = json.dumps({"do": do, **details}) + "\n"
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise PeerFailed(self._ended()) from None
        answer: dict[str, Any] = json.loads(self._line(timeout))
        if "error" in answer:
            raise PeerFailed(answer["error"])
        return answer

    def _line(self, timeout: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        until = time.monotonic() + timeout
        while b"\n" not in self._pending:
            left = until - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                self.close(at_once=True)
                raise PeerFailed(f"no answer within {timeout:.0f} s")
            got = os.read(descriptor, 1 << 16)
            if not got:
                raise PeerFailed(self._ended())
            self._pending += got
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _ended(self) -> str:
        self.close(at_once=True)
        code = self._process.returncode
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"ended by {how}" + (f": {lines[-1][:200]}" if lines else "")

    def settle(self, limit: float = 1.0) -> float:
        """Wait until none of the worker's threads runs; returns the seconds that took.

        OpenMP runtimes and BLAS spin for a while after a parallel region (libomp 200 ms), which
        would take cores from whoever is measured next.
        """
        start = time.monotonic()
        quiet = 0
        while quiet < 2 and time.monotonic() - start < limit:
            quiet = 0 if _running(self.pid) else quiet + 1
            time.sleep(0.001)
        return time.monotonic() - start

    def close(self, at_once: bool = False) -> None:
        """End the process and all it started."""
        if self._process.poll() is None and not at_once:
            try:
                assert self._process.stdin is not None
                self._process.stdin.write(b'{"do": "quit"}\n')
                self._process.stdin.flush()
                self._process.wait(timeout=2)
            except (OSError, ValueError, subprocess.TimeoutExpired):
                at_once = True
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _running(pid: int) -> bool:
    """Whether any thread of the process is on a core or waits for one."""
    tasks = Path(f"/proc/{pid}/task")
    try:
        for task in tasks.iterdir():
            # pid (name) state ...; the name may hold anything, so look after its end.
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            if state == "R":
                return True
    except (OSError, IndexError):
        return False
    return False
