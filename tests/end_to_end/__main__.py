"""Command line of the end-to-end check, see :mod:`tests.end_to_end`."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from bench.polybench.registry import programs
from tests.end_to_end.jobs import run_all
from tests.end_to_end.replay import replay, save
from tests.end_to_end.subjects import FRONTENDS
from tests.end_to_end.variants import SMALL, Plan, Sizes
from tests.end_to_end.worker import SIZES, Job, Report

COMPILERS = (("gcc",), ("clang", "clang-22", "clang-19", "clang-16", "clang-14"))
"""Names of each compiler, the first that is found stands for all."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.end_to_end", description=__doc__)
    parser.add_argument("--scripts", type=int, default=20, help="random scripts a program")
    parser.add_argument("--programs", default="", help="names, separated by commas")
    parser.add_argument("--frontends", default=",".join(FRONTENDS))
    parser.add_argument("--seed", type=int, default=0, help="of the random scripts")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--sizes", default=",".join(SIZES), help="names of problem sizes")
    parser.add_argument("--large-tiles", action="store_true", help="tiles as for large problems")
    parser.add_argument("--warnings", action="store_true", help="compile with -Wall -Wextra too")
    parser.add_argument("--save", type=Path, help="folder for a reproducer of each failure")
    parser.add_argument("--show", type=int, default=20, help="failures to print in full")
    parser.add_argument("--replay", type=Path, help="run one saved reproducer instead")
    options = parser.parse_args(argv)
    if options.replay:
        message = replay(options.replay)
        sys.stdout.write(f"{message or 'no failure'}\n")
        return 1 if message else 0
    names = options.programs.split(",") if options.programs else None
    plan = Plan(options.scripts, options.seed, Sizes() if options.large_tiles else SMALL)
    found = [next(filter(shutil.which, names), "") for names in COMPILERS]
    warn = tuple(filter(None, found)) if options.warnings else ()
    work = [
        Job(p.name, frontend, plan, tuple(options.sizes.split(",")), warn=warn)
        for p in programs(names=names)
        for frontend in options.frontends.split(",")
    ]
    started = time.monotonic()
    reports: list[Report] = []
    shown = 0
    for report in run_all(work, options.jobs):
        reports.append(report)
        sys.stdout.write(_summary(report))
        for failure in report.failures:
            shown += 1
            if options.save:
                save(options.save, failure)
            if shown <= options.show:
                sys.stdout.write(f"  {failure}\n")
        sys.stdout.flush()
    failed = sum(len(r.failures) for r in reports)
    sys.stdout.write(
        f"{len(reports)} programs and frontends, {sum(r.variants for r in reports)} schedules "
        f"({sum(r.random for r in reports)} random), {sum(r.runs for r in reports)} runs, "
        f"{failed} failures; {time.monotonic() - started:.0f} s\n"
    )
    return 1 if failed else 0


def _summary(r: Report) -> str:
    verdict = f"{len(r.failures)} FAILURES" if r.failures else "ok"
    if r.over_budget:
        verdict += f", {r.over_budget} too costly for isl"
    return (
        f"{r.program:20} {r.frontend:6} {r.variants:3} schedules {r.runs:4} runs "
        f"{r.seconds:6.1f} s  {verdict}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
