"""``python -m bench.dsp``: sequence parallelisms on the same ST-DiT, counted and timed.

``bytes``: bytes counted against the closed forms for 2 to 128 ranks. ``links``: training steps and
inference on ranks joined by links of several rates (network namespaces where the machine allows,
else links paced in the process, and the table says so). ``loss``: loss curves of one rank and of
several, overlaid. ``--json FILE`` adds the part's results to a file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import perfkit
from bench.dsp import end_to_end, loss, volumes
from bench.dsp.stdit import Size
from bench.dsp.world import (
    Transport,
    enter_namespace,
    inside_namespace,
    namespaces_available,
)
from perfkit.runtime.machine import Machine
from perfkit.runtime.measure import machine_lock

RATES = "100M,1G,10G"


def rates(text: str) -> list[float | None]:
    """``100M,1G,none`` in bits per second."""
    units = {"M": 1e6, "G": 1e9}
    try:
        return [
            None if part == "none" else float(part[:-1]) * units[part[-1]]
            for part in text.split(",")
        ]
    except (ValueError, KeyError, IndexError):
        raise argparse.ArgumentTypeError(f"{text!r}: write 100M,1G,none") from None


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python -m bench.dsp", description=__doc__)
    parts = main.add_subparsers(dest="part", required=True)
    count = parts.add_parser("bytes", help="counted bytes against the closed forms")
    count.add_argument("--ranks", type=numbers, default=list(volumes.RANKS))
    links = parts.add_parser("links", help="end to end over links of several rates")
    links.add_argument("--ranks", type=numbers, default=[2, 4])
    links.add_argument("--rates", type=rates, default=rates(RATES), help=f"default {RATES}")
    links.add_argument("--rounds", type=int, default=7)
    links.add_argument("--transport", choices=("auto", "namespaces", "paced"), default="auto")
    for name in ("batch", "frames", "positions", "width", "heads", "pairs"):
        links.add_argument(f"--{name}", type=int, default=getattr(Size(), name))
    curves = parts.add_parser("loss", help="loss curves of one rank and of several")
    curves.add_argument("--ranks", type=int, default=4)
    curves.add_argument("--steps", type=int, default=200)
    curves.add_argument("--plot", type=Path, help="the picture (needs matplotlib)")
    for part in (count, links, curves):
        part.add_argument("--json", type=Path, help="add the results to this file")
    return main


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    if given.part == "bytes":
        return run_bytes(given)
    if given.part == "loss":
        return run_loss(given)
    return run_links(given, sys.argv[1:] if arguments is None else arguments)


def run_bytes(given: argparse.Namespace) -> int:
    volumes.check_sizes(given.ranks, volumes.SIZE)
    rows = list(volumes.count(given.ranks))
    say(volumes.table(rows))
    keep(given.json, "bytes", {"size": asdict(volumes.SIZE), "rows": [asdict(r) for r in rows]})
    return 0 if all(r.exact for r in rows) else 1


def run_links(given: argparse.Namespace, arguments: Sequence[str]) -> int:
    if given.rounds < 1 or min(given.ranks) < 2:
        sys.exit("needs at least one round, and 2 ranks")
    transport: Transport = "paced"
    if given.transport != "paced":
        if inside_namespace():
            transport = "namespaces"
        elif namespaces_available():
            return enter_namespace("bench.dsp", arguments)
        elif given.transport == "namespaces":
            sys.exit("no network namespaces here: needs unshare, nsenter, ip, tc and the rights")
    size = Size(given.batch, given.frames, given.positions, given.width, given.heads, given.pairs)
    say(f"links: {transport}; {size}, M = {size.bytes / 1e6:.2f} MB, fp32")
    for ranks in given.ranks:
        with machine_lock():
            rows = list(end_to_end.measure(ranks, size, transport, given.rates, given.rounds))
        say(end_to_end.table(rows))
        found = {"size": asdict(size), "rows": [asdict(r) for r in rows]}
        verdict = end_to_end.verdict(rows)
        keep(given.json, f"links, {ranks} ranks, {transport}", {**found, "verdict": verdict})
    return 0


def run_loss(given: argparse.Namespace) -> int:
    curves = loss.train(given.ranks, given.steps)
    say(f"{given.steps} steps on 1 and {given.ranks} ranks: {curves.one[0]:.6f} to")
    say(f"{curves.one[-1]:.6f} on one rank; the largest difference of each method to it:")
    for name, worst in curves.differences.items():
        say(f"  {name}: {worst:.2e}")
    if given.plot:
        loss.draw(curves, given.plot)
    keep(given.json, "loss", {**asdict(curves), "differences": curves.differences})
    return 0


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def keep(path: Path | None, part: str, found: dict[str, Any]) -> None:
    """Add a part to a file of results, with the machine that it is from."""
    if path is None:
        return
    report = json.loads(path.read_text()) if path.exists() else {}
    report[part] = {
        "machine": asdict(Machine.detect()),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "perfkit": perfkit.__version__,
        **found,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
