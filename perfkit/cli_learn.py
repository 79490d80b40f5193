"""``perfkit dataset``: measured schedules of random programs."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from perfkit import config
from perfkit.errors import DatasetError
from perfkit.learn import dataset
from perfkit.learn.gather import Gatherer, Progress
from perfkit.learn.gpu_gather import GpuGatherer, GpuOptions
from perfkit.learn.prepare import Options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``perfkit dataset``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    build = actions.add_parser("build", help="measure random programs; resumes where it stopped")
    build.add_argument("--hours", type=float, default=1.0, help="stop after so long (default 1)")
    build.add_argument("--out", type=Path, required=True, metavar="DIR", help="the data set")
    build.add_argument("--seed", type=int, default=0, help="of the stream of programs")
    build.add_argument("--variants", type=int,
                       help="schedules per program (default 32, for Triton 12)")  # fmt: skip
    build.add_argument("--target", choices=("cpu", "triton"), default="cpu",
                       help="OpenMP kernels on this CPU, or Triton kernels on its GPU")  # fmt: skip
    build.add_argument(
        "--only", choices=("prepare", "measure"),
        help="prepare programs without measuring them, or measure those that are prepared",
    )  # fmt: skip
    stats = actions.add_parser("stats", help="what a data set holds")
    stats.add_argument("folder", type=Path, metavar="DIR")
    stats.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Build or describe a data set."""
    if args.action == "build":
        return _build(args)
    found = dataset.statistics(dataset.load(args.folder))
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        for name, value in found.items():
            if isinstance(value, dict):
                print(f"{name}:")
                for key, count in sorted(value.items(), key=lambda p: -p[1]):
                    print(f"  {key:30} {count}")
            else:
                print(f"{name}: {value}")
    return 0


def _build(args: argparse.Namespace) -> int:
    variants = args.variants
    if not 0 < args.hours < float("inf") or (variants is not None and variants < 1):
        raise DatasetError("dataset build: --hours must be positive and --variants at least 1")
    settings = config.current()
    if args.target == "triton":
        if args.only:
            raise DatasetError("dataset build: --only is for --target cpu")
        wanted = GpuOptions(args.out, args.seed, variants or 12)
        print(GpuGatherer(wanted, settings, _tell).build(args.hours))
        return 0
    options = Options(args.out, args.seed, variants or 32, settings.threads)
    gatherer = Gatherer(options, settings, _tell)
    deadline = time.monotonic() + 3600 * args.hours
    if args.only == "prepare":
        gatherer.prepare(sys.maxsize, deadline)
    elif args.only == "measure":
        gatherer.measure(deadline)
    else:
        gatherer.build(args.hours)
    sys.stderr.write("\n")
    print(gatherer.progress)
    return 0


def _tell(progress: Progress) -> None:
    if sys.stderr.isatty() or (progress.programs + progress.prepared) % 20 == 0:
        sys.stderr.write(f"{progress}{chr(13) if sys.stderr.isatty() else chr(10)}")
        sys.stderr.flush()
