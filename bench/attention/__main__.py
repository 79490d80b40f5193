"""``python -m bench.attention``: attention on the CPU, alone (a), with switches (b), links (c)."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

try:
    import torch
except ModuleNotFoundError:
    sys.exit("bench.attention needs torch: pip install '.[torch]'")

import perfkit
from bench.attention import alone, fused
from perfkit import _cpu
from perfkit.runtime.machine import Machine
from perfkit.runtime.measure import machine_lock

SETTINGS = (
    "dtype", "direction", "length", "heads", "dim", "ranks", "training", "frames", "positions",
    "attend", "batch", "rate",
)  # fmt: skip
RATES = (0.25e9, 0.5e9, 1e9, 2e9, 4e9)


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def part_a(given: argparse.Namespace) -> dict[str, Any]:
    """The kernel alone."""
    torch.set_num_threads(given.threads)
    rows: list[alone.Row] = []
    say("dtype direction      S    D  perfkit    torch   ratio  (middle half)     TFLOP/s")
    for dtype in given.dtypes.split(","):
        for dim in given.dims:
            for length in given.lengths:
                for row in alone.measure(
                    dtype, length, dim, given.heads, given.rounds, given.directions
                ):
                    rows.append(row)
                    sys.stdout.write(alone.line(row))
                    sys.stdout.flush()
    for name, value in alone.geomeans(rows).items():
        say(f"geomean {name}: {value:.2f}")
    return {
        "alone": {
            "isa": _cpu.attention_isa()[0],
            "threads": given.threads,
            "unit": "TFLOP/s",
            "rows": [asdict(row) for row in rows],
            "geomeans": alone.geomeans(rows),
        }
    }


def part_b(given: argparse.Namespace) -> dict[str, Any]:
    """Switch + attention + switch; milliseconds."""
    rows = []
    for world in given.ranks:
        for direction in given.directions:
            training = direction == "backward"
            kind = "forward and backward" if training else "forward"
            for size in fused.SIZES:
                found = fused.run_compare(world, size, given.rounds, training)
                rows.append({"ranks": world, "training": training, **asdict(size), "s": found})
                times = "  ".join(f"{name} {1e3 * t:.2f}" for name, t in found.items())
                gain = found["collectives"] / found["fused"]
                exposed = ""
                if "alone" in found:
                    exposed = f"  exposed {1e3 * (found['fused'] - found['alone']):.2f}"
                    exposed += f" of {1e3 * (found['collectives'] - found['alone']):.2f}"
                say(f"{world} ranks, {kind}, {size.name}: {times} ms: {gain:.1f}x{exposed}")
    return {"switch": rows}


def part_c(given: argparse.Namespace) -> dict[str, Any]:
    """Replay of slower links (emulated: flags are set on the link's timetable)."""
    rows = []
    for world in given.ranks:
        for size in (fused.SIZES[2], fused.SIZES[5]):
            found = fused.run_replay(world, size, given.rounds, RATES)
            compute = found[0][2]
            for rate, link, spent in found[1:]:
                bound = max(compute, link)
                chunk = (compute + link) / 16
                rows.append(
                    {"ranks": world, **asdict(size), "rate": rate, "link": link,
                     "compute": compute, "fused": spent}
                )  # fmt: skip
                say(
                    f"{world} ranks, {size.name}, link {rate / 1e9:g} GB/s: fused "
                    f"{1e3 * spent:.2f} ms, link {1e3 * link:.2f}, compute {1e3 * compute:.2f}: "
                    f"{spent / bound:.2f} of the larger, {(spent - chunk) / bound:.2f} less a chunk"
                )
    return {"links (emulated)": rows}


def merged(old: Any, new: Any) -> Any:
    """Results of an earlier run with those of this one, which replace the same sizes."""
    if isinstance(new, dict):
        rows = merged(old["rows"], new["rows"])
        return {**new, "rows": rows, "geomeans": alone.geomeans([alone.Row(**r) for r in rows])}
    return [*new, *(row for row in old if not any(_same(row, again) for again in new))]


def _same(row: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(row.get(name) == other.get(name) for name in SETTINGS)


PARTS = {"a": part_a, "b": part_b, "c": part_c}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.attention", description=__doc__)
    parser.add_argument("--part", choices=PARTS, default="a")
    parser.add_argument("--lengths", type=numbers, default=alone.LENGTHS, help="512,1024,...")
    parser.add_argument("--dims", type=numbers, default=alone.DIMS, help="32,64,...")
    parser.add_argument("--dtypes", default="fp32,bf16")
    parser.add_argument(
        "--directions", type=lambda text: tuple(text.split(",")), default=alone.DIRECTIONS,
        help="forward,backward; in part b, backward is both passes",
    )  # fmt: skip
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--ranks", type=numbers, default=(2, 4), help="of parts b and c")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="add the results and the machine to this file")
    given = parser.parse_args(arguments)
    if min(given.rounds, given.heads, given.threads, *given.ranks) < 1:
        parser.error("rounds, heads, threads and ranks must be at least 1")
    unknown = set(given.dtypes.split(",")) - set(alone.DTYPES)
    unknown |= set(given.directions) - set(alone.DIRECTIONS)
    if unknown:
        parser.error(f"unknown element types or directions: {', '.join(sorted(unknown))}")
    with machine_lock():
        found = PARTS[given.part](given)
    if given.json:
        report = json.loads(given.json.read_text()) if given.json.exists() else {}
        report |= {
            "machine": asdict(Machine.detect()),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "perfkit": perfkit.__version__,
        }
        for name, value in found.items():
            report[name] = merged(report[name], value) if name in report else value
        given.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
