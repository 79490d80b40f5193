"""``perfkit tune FILE.c``: search and measure for a given time; optimize uses what is found."""

from __future__ import annotations

import argparse
import re
import sys
import time
from dataclasses import replace

from perfkit import config
from perfkit.analysis.dependences import Analysis
from perfkit.cli_optimize import add_file_options, parse, sizes_of
from perfkit.cli_schedule import Trial, known_sizes
from perfkit.cost.calibration import shipped_for
from perfkit.errors import PerfkitError, SettingError
from perfkit.frontends.c import CRegion
from perfkit.learn.tune import Progress, Tuner
from perfkit.schedule.state import State
from perfkit.search.auto import Problem
from perfkit.search.compiled import Builder
from perfkit.search.explain import explain_choice

_BUDGET = re.compile(r"^(\d+(?:\.\d+)?)\s*(s|m|h|)$")
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``perfkit tune``."""
    add_file_options(parser)
    add = parser.add_argument
    add("--budget", default="60s", metavar="TIME", help="as in 90s, 10m, 1h; default 60s")
    add("--resume", action="store_true", help="go on from the trials of earlier sessions")
    add("--explain", action="store_true", help="print each region's schedule")


def run(args: argparse.Namespace) -> int:
    """Tune every region of a file; 1 when none could be."""
    settings = config.current()
    settings = replace(settings, fp=args.fp or settings.fp)
    budget = seconds_of(args.budget)
    file = parse(args, settings)
    regions = [r for r in file.regions if r.scop is not None]
    for region in file.regions:
        if region.scop is None:
            sys.stderr.write(f"{region.error}\n")
    done = 0
    for region in regions:
        try:
            _tune(region, args, settings, budget / len(regions))
            done += 1
        except PerfkitError as error:
            sys.stderr.write(f"{region.location}: {region.name}: {error}\n")
    return 0 if done else 1


def _tune(
    region: CRegion, args: argparse.Namespace, settings: config.Settings, seconds: float
) -> None:
    scop = region.scop
    assert scop is not None
    builder = Builder.detect(settings)
    sizes = known_sizes(scop, sizes_of(args.sizes))
    problem = Problem(
        State.start(scop, settings.fp), Analysis(max_operations=settings.isl_max_operations),
        builder.machine, sizes, settings.threads, shipped_for(builder.machine, settings),
    )  # fmt: skip
    began = time.monotonic()

    def told(progress: Progress) -> None:
        left = max(0.0, seconds - (time.monotonic() - began))
        end = "\r" if sys.stderr.isatty() else "\n"
        sys.stderr.write(f"{region.name}: {progress}, {left:.0f} s left{end}")
        sys.stderr.flush()

    tuner = Tuner(problem, Trial(scop, sizes, builder).signature, builder, told, args.resume)
    choice = tuner.run(seconds)
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    print(f"{region.location}: {region.name}: {tuner.progress}")
    if args.explain:
        print(explain_choice(choice))


def seconds_of(text: str) -> float:
    """A time such as 90s, 10m or 1h. Raises SettingError."""
    found = _BUDGET.match(text.strip())
    if found is None or not float(found[1]):
        raise SettingError(f"--budget {text}: write a time such as 90s, 10m or 1h")
    return float(found[1]) * _UNITS[found[2]]
