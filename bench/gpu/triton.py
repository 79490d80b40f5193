"""``python -m bench.gpu.triton``: the test programs as Triton kernels on a GPU, checked and timed.

Each program is mapped for a size (default LARGE), its result compared with that of the CPU kernel
of the original order, and timed by the GPU's clock, launches included. ``--seconds`` bounds the
whole run: programs that find no time are listed as left out. The predicted time stands beside the
measured one, which is what the cost model is to be fitted to.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import perfkit
from bench.polybench.registry import Program, programs
from perfkit.errors import PerfkitError
from perfkit.runtime.triton_kernel import TritonKernel

ROUNDS = 5
LONGEST = 5.0
"""Seconds that a program may be predicted to take; nothing can stop a kernel."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--fp", default="reassociate", choices=("strict", "reassociate"))
    parser.add_argument("--size", default="LARGE")
    parser.add_argument("--seconds", type=float, default=80.0, help="start no program after these")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    try:
        import torch
    except ImportError:
        sys.stderr.write("bench.gpu.triton needs torch and triton: pip install '.[gpu]'\n")
        return 1
    if not torch.cuda.is_available():
        sys.stderr.write("bench.gpu.triton: torch finds no GPU on this machine\n")
        return 1
    try:
        selected = programs(names=args.names or None)
    except ValueError as error:
        sys.stderr.write(f"bench.gpu.triton: {error}\n")
        return 2
    begin = time.monotonic()
    rows: list[dict[str, Any]] = []
    for program in selected:
        row: dict[str, Any] = {"program": program.name}
        if time.monotonic() - begin > args.seconds:
            row["problem"] = "left out: no time"
        else:
            try:
                row |= measured(program, args.fp, args.size)
            except Exception as error:  # one program's failure is a row, not the end
                row["problem"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        rows.append(row)
        sys.stdout.write(line(row) + "\n")
        sys.stdout.flush()
    if args.json:
        args.json.write_text(json.dumps({"fp": args.fp, "size": args.size, "rows": rows}, indent=1))
    return int(any(not r.get("agrees", True) for r in rows))


def line(row: dict[str, Any]) -> str:
    if "problem" in row:
        return f"{row['program']:20} {row['problem']}"
    predicted = f"{row['predicted_ms']:10.3f}" if row["predicted_ms"] is not None else " " * 10
    agrees = "" if row["agrees"] else f"  WRONG: relative error {row['error']:.2g}"
    return f"{row['program']:20}{row['measured_ms']:10.3f} ms, predicted {predicted} ms{agrees}"


def measured(program: Program, fp: str, size: str) -> dict[str, Any]:
    """One program: error against the CPU kernel, predicted and measured milliseconds."""
    import torch

    arguments = program.arguments(size)
    kernel = perfkit.optimize(program.function, **arguments, target="triton", fp=fp)
    if kernel.predicted is not None and kernel.predicted > LONGEST:
        raise PerfkitError(f"left out: predicted to take {kernel.predicted:.1f} s")
    pristine = {n: _on_gpu(v, torch) for n, v in arguments.items()}
    memory = {n: v.clone() if hasattr(v, "clone") else v for n, v in pristine.items()}
    seconds = [_timed(kernel, pristine, memory, torch) for _ in range(ROUNDS + 1)][1:]
    perfkit.optimize(program.function, **arguments, schedule="original")(**arguments)
    error = max(
        (_error(memory[n].cpu().numpy(), arguments[n]) for n in program.outputs), default=0.0
    )
    return {
        "kernels": len(kernel.module.kernels),
        "predicted_ms": None if kernel.predicted is None else kernel.predicted * 1e3,
        "measured_ms": statistics.median(seconds) * 1e3,
        "error": error, "agrees": error <= program.tolerance,
    }  # fmt: skip


def _on_gpu(value: Any, torch: Any) -> Any:
    return torch.from_numpy(value).cuda() if isinstance(value, np.ndarray) else value


def _timed(kernel: TritonKernel, pristine: Any, memory: Any, torch: Any) -> float:
    for name, value in pristine.items():
        if hasattr(value, "clone"):
            memory[name].copy_(value)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    kernel(**memory)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def _error(got: Any, want: Any) -> float:
    a, b = got.astype("float64"), want.astype("float64")
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    scale = float(np.max(np.abs(b), where=np.isfinite(b), initial=0.0)) or 1.0
    return float(np.max(np.where(same, 0.0, np.abs(a - b)), initial=0.0)) / scale


if __name__ == "__main__":
    raise SystemExit(main())
