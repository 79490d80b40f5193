"""Generated Triton modules in a process of their own, interpreted on the CPU.

Triton decides at import whether kernels are interpreted (``TRITON_INTERPRET=1``), so each way needs
its own process. ``python -m tests.codegen.triton_worker JOBS.json`` prints one JSON line per job.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from triton.runtime import interpreter

from bench.polybench.registry import programs
from perfkit.analysis.dependences import Analysis
from perfkit.codegen import interpret
from perfkit.codegen.check import example_sizes
from perfkit.codegen.triton import assemble, generate_part
from perfkit.frontends.python import from_function
from perfkit.runtime.triton_compile import load_module
from perfkit.runtime.triton_kernel import emulated_libdevice
from perfkit.runtime.triton_module import TritonSource
from perfkit.schedule.gpu_mapping import Blocks, map_to_gpu
from perfkit.schedule.state import State
from perfkit.search.gpu import choose_gpu

Order = Callable[[int], list[int]]
ORDERS: dict[str, Order] = {
    "forward": lambda n: list(range(n)),
    "reversed": lambda n: list(range(n))[::-1],
    "random": lambda n: random.Random(n).sample(range(n), n),
}


@contextmanager
def grid_order(order: Order) -> Iterator[None]:
    """The programs of every grid in another order; the interpreter runs one after the other."""
    builder = interpreter.interpreter_builder
    set_grid_idx = builder.set_grid_idx

    def permuted(x: int, y: int, z: int) -> None:
        set_grid_idx(order(builder.grid_dim[0])[x], y, z)

    builder.set_grid_idx = permuted
    try:
        yield
    finally:
        del builder.set_grid_idx


def run(module: ModuleType, entry: str, arguments: dict[str, Any]) -> tuple[Any, ...]:
    """Call a launcher on NumPy arguments, which change in place; the values returned."""
    tensors = {
        n: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for n, v in arguments.items()
    }
    returned = getattr(module, entry)(**tensors)
    return () if returned is None else returned if isinstance(returned, tuple) else (returned,)


def interpreted(job: dict[str, Any]) -> dict[str, Any]:
    """The largest relative error of each order of programs."""
    (program,) = programs(names=[job["program"]])
    size = job.get("size", "TINY")
    arguments = program.arguments(size)
    scop, signature = from_function(program.function, **arguments)
    state, analysis = State.start(scop, job["fp"]), Analysis()
    if "blocks" in job:
        mapped = map_to_gpu(state, analysis, Blocks(*job["blocks"]))
        part = generate_part(mapped.state, signature, analysis, mapped.script)
    else:
        large = program.arguments(job["for"])
        sizes = example_sizes(signature, (), large)
        del large
        choice = choose_gpu(state, signature, analysis, "auto", sizes)
        mapped, part = choice.seed, choice.part
    source = TritonSource(part.name, assemble([part]), part.kernels)
    expected = program.arguments(size)
    returned = interpret.call(scop, signature, expected)
    result: dict[str, Any] = {
        "mapping": mapped.name, "kernels": len(source.kernels), "errors": {},
        "scans": source.text.count("tl.associative_scan"), "dots": source.text.count("tl.dot"),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        module = load_module(source, Path(folder))
        module.libdevice = emulated_libdevice()  # type: ignore[attr-defined]
        for name in job.get("orders", ["forward"]):
            found = program.arguments(size)
            with grid_order(ORDERS[name]):
                values = run(module, source.entry, found)
            pairs = [
                (found[n], expected[n])
                for n, v in found.items()
                if isinstance(v, np.ndarray) and n in program.outputs
            ]
            pairs += [(np.asarray(a), np.asarray(b)) for a, b in zip(values, returned, strict=True)]
            result["errors"][name] = max((error(a, b) for a, b in pairs), default=0.0)
    result["tolerance"] = program.tolerance
    return result


def error(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> float:
    """The largest difference, relative to the largest element."""
    a, b = got.astype("float64"), want.astype("float64")
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if np.all(same):
        return 0.0
    scale = float(np.max(np.abs(b[np.isfinite(b)]), initial=0.0)) or 1.0
    difference = float(np.max(np.where(same, 0.0, np.abs(a - b)))) / scale
    return difference if np.isfinite(difference) else 1e300


def main(path: str) -> None:
    for job in json.loads(Path(path).read_text()):
        start = time.perf_counter()
        try:
            result = interpreted(job)
        except Exception as problem:
            result = {"problem": f"{type(problem).__name__}: {problem}"}
            result["trace"] = traceback.format_exc()
        result["seconds"] = time.perf_counter() - start
        sys.stdout.write(json.dumps({**job, **result}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
