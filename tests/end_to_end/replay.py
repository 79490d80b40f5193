"""Failures as files, and running one of them again."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path

from bench.polybench.registry import programs
from perfkit.analysis.dependences import Analysis
from perfkit.schedule import script
from perfkit.schedule.state import State
from tests.end_to_end.subjects import subject
from tests.end_to_end.variants import Variant
from tests.end_to_end.worker import Failure, Job, Plan, Run


def save(folder: Path, failure: Failure) -> Path:
    """Write a failure with its script and its generated C; ``--replay`` takes the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{failure.program}-{failure.frontend}-{failure.variant or 'job'}.json"
    path.write_text(json.dumps(dataclasses.asdict(failure), indent=1) + "\n")
    return path


def replay(path: Path) -> str:
    """Run a saved failure's script again, generated anew; what is wrong, or ""."""
    failure = Failure(**json.loads(path.read_text()))
    (program,) = programs(names=[failure.program])
    which = subject(program, failure.frontend)
    job = Job(failure.program, failure.frontend, Plan(0, everything=False), full_every=1)
    analysis = Analysis(parallel_reductions=failure.frontend == "python")
    start = State.start(which.scop, failure.fp)
    state = script.replay(start, failure.script, analysis)
    variant = Variant(failure.variant, state, failure.script, failure.simd_bytes)
    with tempfile.TemporaryDirectory(prefix="perfkit-e2e-") as place:
        run = Run(job, which, Path(place), lambda what: None, extra=(variant,))
        return "\n".join(f.message for f in run.report().failures)
