"""What a worker process of the fuzz runs; importable by name, so that it can be sent there."""

from __future__ import annotations

import traceback

from tests.fuzz.check import Outcome, run_case
from tests.fuzz.plants import planted


def run_safely(work: tuple[int, str]) -> Outcome:
    """One case; an unexpected exception is a failure of the case, not of the run."""
    seed, plant = work
    try:
        with planted(plant):
            return run_case(seed)
    except Exception:
        return Outcome(seed, "", failures=[traceback.format_exc()])
