"""``python -m bench.backend``: eager torch, Inductor and perfkit on micro programs and models."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import sys
from pathlib import Path

import torch

from bench.backend import compare
from bench.backend.models import MODELS
from bench.backend.programs import PROGRAMS
from perfkit.runtime.machine import Machine

COLUMNS = (
    "subject", "direction", "dtype", "kept", "eager ms", "Inductor ms", "perfkit ms", "x",
    "error x",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.backend", description=__doc__)
    parser.add_argument("names", nargs="*", help="micro programs and models; default: all micro")
    parser.add_argument("--direction", choices=("forward", "training", "both"), default="both")
    parser.add_argument("--dtype", choices=(*compare.DTYPES,), default="fp32")
    parser.add_argument("--mode", help="mode of the backend, such as max-autotune-no-cudagraphs")
    parser.add_argument("--keep", action="store_true", help="keep every region, faster or not")
    parser.add_argument("--rounds", type=int, default=11, help="of timing; 0 only checks")
    parser.add_argument("--tiny", action="store_true", help="small sizes, for tests")
    parser.add_argument("--explain", action="store_true", help="print what became of every region")
    parser.add_argument("--json", type=Path, help="write the rows there")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.names) - {*PROGRAMS, *MODELS}
    if unknown:
        parser.error(f"{min(unknown)}: known are {', '.join((*PROGRAMS, *MODELS))}")
    options = {"keep": True} if chosen.keep else None
    rows = []
    sys.stdout.write(_line(COLUMNS))
    for name in chosen.names or PROGRAMS:
        subject = PROGRAMS[name] if name in PROGRAMS else MODELS[name]
        for direction in compare.DIRECTIONS:
            if chosen.direction not in (direction, "both"):
                continue
            if direction == "training" and not subject.trains:
                continue
            row, report = compare.run(
                name, subject, direction, chosen.mode, options, chosen.rounds, chosen.tiny,
                chosen.dtype,
            )
            rows.append(row)
            sys.stdout.write(_line(_cells(row)))
            if chosen.explain:
                sys.stdout.write(f"{report}\n")
            sys.stdout.flush()
    gains = [r.gain for r in rows if r.gain]
    if gains:
        mean = math.exp(sum(map(math.log, gains)) / len(gains))
        sys.stdout.write(f"geometric mean over Inductor: {mean:.2f}\n")
    if chosen.json:
        record = {
            "machine": Machine.detect().key(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "mode": chosen.mode or "default",
            "rows": [dataclasses.asdict(r) for r in rows],
        }
        chosen.json.write_text(json.dumps(record, indent=1) + "\n")
    return int(any(r.wrong for r in rows))


def _cells(row: compare.Row) -> tuple[str, ...]:
    times = (row.eager, row.inductor, row.perfkit)
    ratio = row.error / row.eager_error if row.eager_error else float(bool(row.error))
    return (
        row.name, row.direction, row.dtype, str(row.kept), *(f"{t:.2f}" for t in times),
        f"{row.gain:.2f}", f"{ratio:.2f}{' WRONG' if row.wrong else ''}",
    )  # fmt: skip


def _line(cells: tuple[str, ...]) -> str:
    widths = (18, 10, 5, 5, 10, 12, 11, 6, 8)
    return " ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
