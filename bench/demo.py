"""``python -m bench.demo``: what perfkit does, in about a minute.

One C file, two Python functions, and (with torch) a transformer block on two ranks.

Exits with 1 when something went wrong: a command failed, or a result differs.
"""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import perfkit
from bench import demo_dsp
from bench.polybench.forms import CALL, wrapper
from bench.polybench.registry import Program, c_arguments, programs
from perfkit import config
from perfkit.errors import PerfkitError
from perfkit.runtime import measure
from perfkit.runtime.build import Toolchain
from perfkit.runtime.machine import Machine

SOURCE = Path(__file__).resolve().parent / "demo_data" / "kernels.c"
FLAGS = ("-O3", "-march=native")
ROUNDS = 5
TIMEOUT = 120
TOLERANCE = 1e-9
# The results of kernels.c in its output file, as numbers of doubles.
C_OUTPUTS = {"matmul": 800 * 800, "stencil": 1000 * 1000}
# Two programs at a size that takes a fraction of a second.
FUNCTIONS = {
    "gemm": {"ni": 800, "nj": 800, "nk": 800},
    "jacobi-2d": {"tsteps": 100, "n": 1000},
}


class DemoFailed(Exception):
    """Something is wrong; the message says what."""


def main() -> int:
    """Run all parts; 0 when every result is right."""
    start = time.monotonic()
    try:
        toolchain = Toolchain.detect()
        cores = config.current().threads
        _say(f"perfkit {perfkit.__version__} on {Machine.detect().cpu}, {cores} threads")
        _say(f"compiler: {toolchain.version}")
        with tempfile.TemporaryDirectory(prefix="perfkit-demo-") as folder:
            right = [*_c_file(toolchain, Path(folder)), *_functions(toolchain, Path(folder))]
    except (DemoFailed, PerfkitError, OSError) as error:
        _say(f"\ndemo failed: {error}")
        return 1
    _say("\n3. Sequence parallelism")
    ranks_right = demo_dsp.main() == 0
    took = time.monotonic() - start
    wrong = right.count(False)
    _say(f"\n{len(right) - wrong} of {len(right)} results checked and right, {took:.0f} s")
    return 0 if ranks_right and not wrong else 1


# --- 1. a C file through the command line -------------------------------------------------


def _c_file(toolchain: Toolchain, folder: Path) -> list[bool]:
    optimized = folder / "kernels.opt.c"
    _say(f"\n1. A C file: perfkit optimize {SOURCE.name} -o {optimized.name}")
    options = ["-o", str(optimized), "--report", "json"]
    report = _run([sys.executable, "-m", "perfkit.cli", "optimize", str(SOURCE), *options])
    regions = {region["function"]: region for region in json.loads(report)["regions"]}
    before, after = folder / "before", folder / "after"
    openmp = [toolchain.openmp_flag] if toolchain.openmp_flag else []
    _run([toolchain.path, *FLAGS, str(SOURCE), "-o", str(before), "-lm"])
    _run([toolchain.path, *FLAGS, *openmp, str(optimized), "-o", str(after), "-lm"])
    # In turn, so that a busy moment hits both.
    times = [(_execute(before), _execute(after)) for _ in range(ROUNDS)]
    expected, actual = (_outputs(Path(f"{path}.bin")) for path in (before, after))
    right = []
    for name in C_OUTPUTS:
        old = statistics.median(a[name] for a, _ in times)
        new = statistics.median(b[name] for _, b in times)
        region = regions.get(name)
        if region is None:
            raise DemoFailed(f"{SOURCE.name}: no region was found in {name}")
        if region["status"] == "refused":
            raise DemoFailed(f"{name} was refused: {region['message']}")
        error = _error(expected[name], actual[name])
        right.append(_show(name, region["script"], error, old, new))
    return right


def _execute(program: Path) -> dict[str, float]:
    """Seconds by kernel, as the program prints them."""
    lines = _run([str(program), f"{program}.bin"]).splitlines()
    return {name: float(seconds) for name, seconds in map(str.split, lines)}


def _outputs(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    values, found, start = np.fromfile(path), {}, 0
    for name, count in C_OUTPUTS.items():
        found[name] = values[start : start + count]
        start += count
    if start != values.size:
        raise DemoFailed(f"{path.name} holds {values.size} numbers instead of {start}")
    return found


# --- 2. Python functions ------------------------------------------------------------------


def _functions(toolchain: Toolchain, folder: Path) -> list[bool]:
    _say("\n2. Python functions: kernel = perfkit.optimize(function, *arguments, measure=4)")
    return [_function(program, toolchain, folder) for program in programs(names=FUNCTIONS)]


def _function(program: Program, toolchain: Toolchain, folder: Path) -> bool:
    sizes = FUNCTIONS[program.name]
    ours, theirs = program.arguments(sizes), program.arguments(sizes)
    fresh = program.arguments(sizes)
    start = time.perf_counter()
    kernel = perfkit.optimize(program.function, *ours.values(), measure=4)
    took = time.perf_counter() - start
    bound = kernel.bind(*ours.values())
    original = _original(program, sizes, theirs, toolchain, folder)

    def on_fresh_data(arguments: dict[str, Any], call: Callable[[], float]) -> float:
        for name in program.outputs:
            np.copyto(arguments[name], fresh[name])
        return call()

    samples = measure.interleaved(
        [lambda: on_fresh_data(theirs, original), lambda: on_fresh_data(ours, bound.seconds)],
        ROUNDS,
        keep=(0, 1),
    )
    problem = next((sample.error for sample in samples if sample.error), "")
    if problem:
        raise DemoFailed(f"{program.name}: {problem}")
    error = max(_error(theirs[name], ours[name]) for name in program.outputs)
    old, new = (sample.median for sample in samples)
    return _show(f"{program.name} (optimized in {took:.1f} s)", kernel.schedule, error, old, new)


def _original(
    program: Program,
    sizes: dict[str, int],
    arguments: dict[str, Any],
    toolchain: Toolchain,
    folder: Path,
) -> Callable[[], float]:
    """The same loops in C, compiled as they are."""
    call, library = folder / "call.c", folder / f"{program.c_function}.so"
    call.write_text(wrapper(program))
    files = [str(program.c_path), str(call), "-o", str(library)]
    _run([toolchain.path, *FLAGS, "-w", "-shared", "-fPIC", *files, "-lm"])
    function = getattr(ctypes.CDLL(str(library)), CALL)
    given = c_arguments(program, sizes, arguments)
    pointers = (ctypes.c_void_p * len(given))(
        *(v.value if isinstance(v, ctypes.c_void_p) else ctypes.addressof(v) for v in given)
    )
    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    # `given` owns the scalars that `pointers` leads to.
    keep = (given, pointers)
    return lambda: measure.time_calls(address, ctypes.addressof(keep[1]))[0]


# --- shared -------------------------------------------------------------------------------


def _error(expected: np.ndarray[Any, Any], actual: np.ndarray[Any, Any]) -> float:
    """Largest difference over the largest expected value; infinite for NaN."""
    if not np.isfinite(actual).all():
        return float("inf")
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def _show(name: str, script: str, error: float, old: float, new: float) -> bool:
    _say(f"\n   {name}")
    _say(textwrap.indent(script.strip() or "kept as it was", " " * 6))
    verdict = "checked" if error <= TOLERANCE else "WRONG"
    _say(f"   {verdict}: max relative error {error:.1e}")
    faster = f"{old / new:.1f}x the speed of the original"
    _say(f"   {old:.4f} s -> {new:.4f} s: {faster}, {' '.join(FLAGS)}")
    return error <= TOLERANCE


def _run(command: list[str]) -> str:
    """What a command prints; DemoFailed with its last words when it fails."""
    # The package may be used from its source tree without being installed.
    root = str(SOURCE.parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"{shlex.join(command)} took over {TIMEOUT} s") from None
    if done.returncode:
        words = (done.stderr or done.stdout).strip()[-800:]
        raise DemoFailed(f"{shlex.join(command)} ended with {done.returncode}: {words}")
    return done.stdout


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
