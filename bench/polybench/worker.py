"""Child process that holds one candidate of one program and runs it when asked.

One JSON object per line on stdin and stdout. The first line tells what to load; then
{"do": "run"} -> {"seconds": s}, {"do": "outputs", "folder": f} -> {"arrays": [...], "value": v},
{"do": "quit"}. A failure answers {"error": message}. Each candidate has a process of its own so
that OpenMP runtimes do not meet, and so that a crash is one candidate's only.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import math
import os
import re
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.polybench.forms import CALL, returns_value
from bench.polybench.registry import c_arguments, programs
from perfkit import config
from perfkit.runtime import measure

# A call that takes less than this is preceded by an untimed one, so that caches, threads and
# clock frequency are those of a program that is running; in a longer call they do not show.
WARM_BELOW = 0.5
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
# One sample of a call below the first is the median of so many calls.
SHORT, SHORT_CALLS = 0.005, 5

Call = Callable[[], float]


class Holder:
    """One candidate's data, its call, and the state of its outputs before the call."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.program = programs(names=[spec["program"]])[0]
        self.sizes = self.program.sizes[spec["dataset"]]
        self.arguments = self.program.arguments(spec["dataset"], spec["seed"])
        self.value: float | None = None
        # Inputs are never written and scratch is dead on entry: only outputs need restoring.
        self.before = {name: self.arguments[name].copy() for name in self.program.outputs}
        self.facts: dict[str, Any] = {}
        makers = {"c": self._c, "numba": self._numba, "numpy": self._numpy, "perfkit": self._kernel}
        self.call: Call = makers[spec["kind"]](spec)
        self.restore()

    def restore(self) -> None:
        for name, contents in self.before.items():
            np.copyto(self.arguments[name], contents)

    def once(self) -> float:
        """Seconds of one call on restored data; restoring is not timed."""
        self.restore()
        return self.call()

    def sample(self) -> float:
        seconds = self.once()
        if seconds >= WARM_BELOW:
            return seconds
        count = SHORT_CALLS if seconds < SHORT else 1
        return statistics.median(self.once() for _ in range(count))

    def outputs(self, folder: Path) -> dict[str, Any]:
        for name in self.program.outputs:
            np.save(folder / f"{name}.npy", self.arguments[name])
        value = self.value
        # JSON has no NaN.
        shown = value if value is None or math.isfinite(value) else repr(value)
        return {"arrays": list(self.program.outputs), "value": shown}

    def _c(self, spec: dict[str, Any]) -> Call:
        function = getattr(ctypes.CDLL(spec["library"]), CALL)
        given = c_arguments(self.program, self.sizes, self.arguments)
        result = ctypes.c_double()
        returns = returns_value(self.program)
        addresses = [
            value.value if isinstance(value, ctypes.c_void_p) else ctypes.addressof(value)
            for value in [*given, result]
        ]
        pointers = (ctypes.c_void_p * len(addresses))(*addresses)
        address = ctypes.cast(function, ctypes.c_void_p).value or 0

        def call() -> float:
            seconds = measure.time_calls(address, ctypes.addressof(pointers))[0]
            self.value = result.value if returns else None
            return seconds

        # The pointers' targets live as long as the call does.
        call.keep = (given, result)  # type: ignore[attr-defined]
        return call

    def _timed(self, function: Callable[..., Any], *given: Any, **named: Any) -> Call:
        def call() -> float:
            start = time.perf_counter()
            value = function(*given, **named)
            seconds = time.perf_counter() - start
            self.value = None if value is None else float(value)
            return seconds

        return call

    def _numba(self, spec: dict[str, Any]) -> Call:
        import numba

        function = self.program.function
        if spec["module"]:
            function = _load(Path(spec["module"]), function.__name__)
        compiled = numba.njit(function, parallel=bool(spec["module"]))
        small = self.program.arguments(next(iter(self.program.sizes)))
        compiled(*small.values())  # compiles for these types
        return self._timed(compiled, *self.arguments.values())

    def _numpy(self, spec: dict[str, Any]) -> Call:
        if self.program.numpy_form is None:
            raise ValueError("the program has no NumPy form")
        return self._timed(self.program.numpy_form, **self.arguments)

    def _kernel(self, spec: dict[str, Any]) -> Call:
        import perfkit

        start = time.perf_counter()
        # A schedule of an earlier run would hide what the search takes.
        names = ("search", "search_width", "search_pluto", "fp", "threads")
        with config.scope(reuse=False, **{n: spec[n] for n in names}):
            kernel = perfkit.optimize(
                self.program.function,
                *self.arguments.values(),
                schedule=spec["schedule"],
                measure=spec["measure"],
            )
        self.facts["optimize_seconds"] = time.perf_counter() - start
        self.facts["schedule"] = kernel.schedule
        self.facts["explain"] = kernel.explain()
        self.restore()
        bound = kernel.bind(*self.arguments.values())

        def call() -> float:
            seconds = bound.seconds()
            value = bound.results()
            self.value = None if value is None else float(value)
            return seconds

        return call


def _load(path: Path, name: str) -> Callable[..., Any]:
    loader = importlib.util.spec_from_file_location(path.stem, path)
    if loader is None or loader.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    function: Callable[..., Any] = getattr(module, name)
    return function


def _describe(error: Exception) -> str:
    """One line; numba's messages have many, coloured."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:300]}"


def serve() -> None:
    """Answer commands until told to quit or the parent goes away."""
    if sys.platform == "linux":
        # A candidate that is stuck reads no end of input: the system ends it with the bench.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # What a candidate prints must not end up between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")

    holder: Holder | None = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if command["do"] == "quit":
                return
            if command["do"] == "load":
                holder = Holder(command)
                answer({"facts": holder.facts})
                continue
            if holder is None:
                raise RuntimeError("nothing is loaded")
            if command["do"] == "once":
                answer({"seconds": holder.once()})
            elif command["do"] == "sample":
                answer({"seconds": holder.sample()})
            elif command["do"] == "outputs":
                answer(holder.outputs(Path(command["folder"])))
            else:
                raise RuntimeError(f"unknown command {command['do']!r}")
        except Exception as error:
            answer({"error": _describe(error)})


if __name__ == "__main__":
    serve()
