"""Command line of the fuzz, see :mod:`tests.fuzz`."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from perfkit.config import available_cores
from tests.fuzz.check import Counts
from tests.fuzz.plants import PLANTS
from tests.fuzz.worker import run_chunk

CHUNK = 16


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--n", type=int, default=200, help="number of cases")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case")
    parser.add_argument("--jobs", type=int, default=available_cores(), help="processes")
    parser.add_argument("--show", type=int, default=3, help="failures to print in full")
    parser.add_argument("--no-compile", action="store_true", help="skip compiled code")
    parser.add_argument("--plant", choices=sorted(PLANTS), default="", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    started = time.monotonic()
    counts, failed = Counts(), 0
    last = options.seed + options.n
    work = [
        (range(first, min(first + CHUNK, last)), options.plant, not options.no_compile)
        for first in range(options.seed, last, CHUNK)
    ]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=spawn) as pool:
        for outcome in (o for chunk in pool.map(run_chunk, work) for o in chunk):
            counts.add(outcome.counts)
            if outcome.failures:
                failed += 1
                if failed <= options.show:
                    sys.stdout.write(f"\n{outcome.reproducer()}\n")
                    sys.stdout.flush()
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{counts.cases} of {options.n}, {failed} failed ")
                sys.stderr.flush()
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    seconds = time.monotonic() - started
    sys.stdout.write(
        f"{counts.cases} programs ({counts.over_budget} over budget), {counts.steps} accepted "
        f"steps, {counts.refusals} refusals "
        f"({counts.unconfirmed} without a violated pair, {counts.too_large} too large to "
        f"enumerate), {counts.runs} runs of the oracle, {counts.compiled} compiled kernels; "
        f"{failed} cases failed; {seconds:.0f} s\n"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
