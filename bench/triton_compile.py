"""Every program as Triton kernels, compiled for sm_90 without a GPU: what the kernels would use.

``python -m bench.triton_compile [--fp strict|reassociate] [--storage float32=bfloat16]
[--size LARGE] [--element float32] [--json FILE] [NAME...]`` maps each program as
``target="triton"`` does for that size and prints one line per kernel: warps, registers and stack
bytes per thread, spill instructions, bytes of shared memory, tensor-core (wgmma, mma) and scalar
FMA instructions. Nothing is run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bench.polybench.registry import Program, programs
from perfkit.analysis.dependences import Analysis
from perfkit.codegen.check import example_sizes
from perfkit.codegen.triton import assemble
from perfkit.cost.device import Gpu
from perfkit.errors import PerfkitError
from perfkit.frontends.python import from_function
from perfkit.runtime.tensors import HALF
from perfkit.runtime.triton_compile import Compiled, compile_kernels
from perfkit.runtime.triton_module import TritonSource
from perfkit.schedule.state import State
from perfkit.search.gpu import GpuChoice, choose_gpu

COLUMNS = ("registers", "stack", "spills", "shared", "wgmma", "mma", "fma")


def chosen(
    program: Program, fp: str, size: str, gpu: Gpu | None = None, element: str = ""
) -> GpuChoice:
    """The default mapping of a program for a size; ``element`` replaces float64 in its arrays."""
    arguments = program.arguments(size)
    for name, value in arguments.items():
        if element and getattr(value, "dtype", None) == np.float64 and value.ndim:
            arguments[name] = value.astype(element)
    scop, signature = from_function(program.function, **arguments)
    sizes = example_sizes(signature, (), arguments)
    return choose_gpu(State.start(scop, fp), signature, Analysis(), "auto", sizes, gpu)


def compiled(
    program: Program, fp: str, storage: dict[str, str], size: str = "LARGE", element: str = ""
) -> tuple[GpuChoice, tuple[Compiled, ...]]:
    """All kernels of a program under its default mapping."""
    choice = chosen(program, fp, size, Gpu.half() if "float32" in storage else None, element)
    source = TritonSource(choice.part.name, assemble([choice.part]), choice.part.kernels)
    return choice, compile_kernels(source, storage=storage, sizes=choice.sizes)


def rows_of(choice: GpuChoice, kernels: tuple[Compiled, ...]) -> list[dict[str, Any]]:
    """The figures of a program as plain data, one entry per kernel."""
    return [
        {"kernel": k.name, "warps": spec.warps} | {c: getattr(k, c) for c in COLUMNS}
        for k, spec in zip(kernels, choice.part.kernels, strict=True)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--fp", default="reassociate", choices=("strict", "reassociate"))
    parser.add_argument("--storage", default="", help="types in memory, as float32=bfloat16")
    parser.add_argument("--element", default="", choices=("", "float32"),
                        help="single precision in place of double")  # fmt: skip
    parser.add_argument("--size", default="LARGE", help="what the mapping is chosen for")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the figures to this file")
    args = parser.parse_args(argv)
    missing = [m for m in ("torch", "triton") if importlib.util.find_spec(m) is None]
    if missing:
        print(f"bench.triton_compile needs {' and '.join(missing)}: pip install '.[gpu]'",
              file=sys.stderr)  # fmt: skip
        return 1
    storage = dict((f"{pair}=").split("=")[:2] for pair in args.storage.split(",") if pair)
    try:
        selected = programs(names=args.names or None)
    except ValueError as error:
        print(f"bench.triton_compile: {error}", file=sys.stderr)
        return 2
    unsized = [p.name for p in selected if args.size not in p.sizes]
    halves = all(k == "float32" and v in HALF for k, v in storage.items())
    if unsized or not halves:
        problem = f"no size {args.size} in {unsized[0]}" if unsized else (
            f"--storage {args.storage}: write float32=float16 or float32=bfloat16")  # fmt: skip
        print(f"bench.triton_compile: {problem}", file=sys.stderr)
        return 2
    report = _run(selected, args.fp, storage, args.size, args.element)
    if args.json:
        runs = json.loads(args.json.read_text())["runs"] if args.json.exists() else []
        args.json.write_text(json.dumps({"runs": merged(runs, report)}, indent=1) + "\n")
    return 1 if report["failed"] else 0


def merged(runs: list[dict[str, Any]], report: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs of a file with one more: programs of the same settings and versions join."""
    settings = [k for k in report if k not in ("programs", "failed", "spilled")]
    for run in runs:
        if all(run[k] == report[k] for k in settings):
            for name in report["programs"] | report["failed"]:
                run["programs"].pop(name, None)
                run["failed"].pop(name, None)
            run["programs"] |= report["programs"]
            run["failed"] |= report["failed"]
            run["spilled"] = _spilled(run["programs"])
            return runs
    return [*runs, report]


def _spilled(found: dict[str, Any]) -> list[str]:
    """Kernels with spill instructions."""
    rows = (row for entry in found.values() for row in entry["kernels"])
    return sorted(row["kernel"] for row in rows if row["spills"])


def _run(
    selected: list[Program], fp: str, storage: dict[str, str], size: str, element: str
) -> dict[str, Any]:
    print(("{:28}{:>6}" + "{:>10}" * len(COLUMNS)).format("kernel", "warps", *COLUMNS))
    found: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for program in selected:
        start = time.perf_counter()
        try:
            choice, kernels = compiled(program, fp, storage, size, element)
        except (PerfkitError, RuntimeError, ValueError) as error:
            failed[program.name] = f"{type(error).__name__}: {error}".splitlines()[0]
            print(f"{program.name}: {failed[program.name]}", file=sys.stderr)
            continue
        rows = rows_of(choice, kernels)
        found[program.name] = {"schedule": choice.seed.name, "kernels": rows}
        for row in rows:
            print(("{:28}{:6}" + "{:10}" * len(COLUMNS)).format(*row.values()), flush=True)
        print(f"# {program.name}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    count, spilled = sum(len(entry["kernels"]) for entry in found.values()), _spilled(found)
    print(f"{len(found)} programs, {count} kernels, {len(spilled)} with spills "
          f"{' '.join(spilled)}, {len(failed)} programs failed")  # fmt: skip
    return {
        "target": "sm_90", "fp": fp, "storage": storage, "size": size, "element": element,
        "versions": {m: version(m) for m in ("torch", "triton")}, "run_on_hardware": False,
        "programs": found, "spilled": spilled, "failed": failed,
    }  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
