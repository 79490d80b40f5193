"""Jobs in processes of their own: a crash or a hang of generated code is one more failure."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext

from tests.end_to_end.worker import Failure, Job, Report, run_job

SILENCE = 900.0
"""Seconds without a word from a job until it counts as hanging."""


def run_all(work: Sequence[Job], jobs: int = 1) -> Iterator[Report]:
    """The reports, in order."""
    # Idle threads that spin would take the cores from the other processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("OMP_NUM_THREADS", "3")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.end_to_end.worker"])
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(lambda job: _isolated(context, job), work)


def _isolated(context: ForkServerContext, job: Job) -> Report:
    started = time.monotonic()
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(job, theirs))
    process.start()
    theirs.close()
    doing, report, hung = "starting", None, False
    try:
        while report is None:
            if not ours.poll(SILENCE):
                hung = True
                process.kill()
                break
            message = ours.recv()
            if isinstance(message, Report):
                report = message
            else:
                doing = message
    except EOFError:
        pass
    process.join()
    if report is None:
        how = "hangs" if hung else f"crashes (exit code {process.exitcode})"
        what, _, script = doing.partition("\n")
        report = Report(job.program, job.frontend)
        report.failures.append(
            Failure(job.program, job.frontend, "", f"{how} while {what}", script)
        )
    report.seconds = time.monotonic() - started
    return report


def _child(job: Job, pipe: Connection) -> None:
    try:
        pipe.send(run_job(job, pipe.send))
    except Exception as error:
        report = Report(job.program, job.frontend)
        report.failures.append(Failure(job.program, job.frontend, "", f"raises {error!r}"))
        pipe.send(report)
