"""The quick part of the end-to-end check: every program, both frontends, five schedules each."""

from __future__ import annotations

import shutil

import pytest

from bench.polybench.registry import EXTRA, POLYBENCH
from tests.end_to_end.subjects import FRONTENDS
from tests.end_to_end.variants import Plan
from tests.end_to_end.worker import Job, run_job

PLAN = Plan(scripts=2, seed=1, everything=False)
WARNED = ("gemm", "cholesky", "nussinov", "frobenius", "guards", "lbm-d2q9")


@pytest.mark.parametrize("frontend", FRONTENDS)
@pytest.mark.parametrize("name", [*POLYBENCH, *EXTRA])
def test_schedules_compute_the_same(name: str, frontend: str) -> None:
    report = run_job(Job(name, frontend, PLAN, sizes=("TINY",), full_every=0))
    assert not report.failures, "\n\n".join(map(str, report.failures))
    assert report.runs == report.variants >= 3


@pytest.mark.parametrize("compiler", ["gcc", "clang", "clang-22"])
@pytest.mark.parametrize("name", WARNED)
def test_generated_code_compiles_without_warnings(name: str, compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    for frontend in FRONTENDS:
        report = run_job(Job(name, frontend, PLAN, sizes=(), warn=(compiler,), full_every=0))
        assert not report.failures, "\n\n".join(map(str, report.failures))
