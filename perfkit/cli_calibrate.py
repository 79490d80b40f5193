"""``perfkit calibrate``: fit the cost model to this machine."""

from __future__ import annotations

import argparse
import sys
from math import expm1

from perfkit import config
from perfkit.cli_tune import seconds_of
from perfkit.cost import calibration
from perfkit.cost.scorer import shipped
from perfkit.errors import WeightsError
from perfkit.learn.calibrate import calibrate
from perfkit.learn.gather import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``perfkit calibrate``."""
    parser.add_argument(
        "--budget", default="2m", metavar="TIME", help="to measure; as in 90s, 2m; default 2m"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, fit, store. Raises WeightsError without weights or with too few measurements."""
    settings = config.current()
    model = shipped()
    if model is None:
        raise WeightsError(
            "there are no weights to calibrate: the analytic cost model is in use, which needs "
            "none; make weights with `perfkit dataset build` and `perfkit train`"
        )
    found = calibrate(model, settings, seconds_of(args.budget), _tell)
    path = calibration.save(found, settings)
    print(
        f"{found.schedules} schedules: median error {expm1(found.before):.0%} before, "
        f"{expm1(found.after):.0%} after; stored in {path}"
    )
    return 0


def _tell(progress: Progress) -> None:
    sys.stderr.write(f"{progress}\n")
