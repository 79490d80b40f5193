"""What a worker process of the fuzz runs; importable by name, so that it can be sent there."""

from __future__ import annotations

import traceback
from dataclasses import replace

from tests.fuzz.check import Outcome, run_case
from tests.fuzz.compiled import Candidate, check_compiled
from tests.fuzz.plants import planted


def run_safely(work: tuple[int, str]) -> Outcome:
    """One case; an unexpected exception is a failure of the case, not of the run."""
    seed, plant = work
    try:
        with planted(plant):
            return run_case(seed)
    except Exception:
        return Outcome(seed, "", failures=[traceback.format_exc()])


def run_chunk(work: tuple[range, str, bool]) -> list[Outcome]:
    """Some cases, their kernels compiled together; the states stay in the worker."""
    seeds, plant, compile_too = work
    outcomes = [run_safely((seed, plant)) for seed in seeds]
    candidates = [Candidate(o.seed, o.state) for o in outcomes if o.state and not o.failures]
    if compile_too and candidates:
        try:
            failures = check_compiled(candidates)
        except Exception:
            failures = {candidates[0].seed: traceback.format_exc()}
        known = {c.seed for c in candidates}
        for outcome in outcomes:
            if outcome.seed in known:
                outcome.counts.compiled += 1
            if outcome.seed in failures:
                outcome.failures.append(failures[outcome.seed])
    return [replace(o, state=None) for o in outcomes]
