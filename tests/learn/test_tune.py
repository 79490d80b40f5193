"""Tuning: what is measured is kept, gone on from, and used by ``perfkit optimize``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from perfkit import config
from perfkit.analysis.dependences import Analysis
from perfkit.cli import main
from perfkit.cli_schedule import Trial
from perfkit.cli_tune import seconds_of
from perfkit.errors import SettingError
from perfkit.learn import tune
from perfkit.learn.measure import Job, Outcome, Runner
from perfkit.learn.tune import Tuner
from perfkit.schedule.state import State
from perfkit.search.auto import Problem
from perfkit.search.compiled import Builder
from tests.learn.kill import PROGRAM, kept_trials, trial
from tests.programs_ir import MATMUL, parse_scop


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERFKIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PERFKIT_SEARCH_SECONDS", "0.3")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "product.c"
    path.write_text(PROGRAM)
    return path


def test_optimize_uses_what_tune_found(
    source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["tune", str(source), "--budget", "1s"]) == 0
    assert "schedules measured" in capsys.readouterr().out

    def search(*_: object) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr("perfkit.search.decide.candidates", search)
    assert main(["optimize", str(source), "--explain", "--measure", "2"]) == 0
    assert "measured" in capsys.readouterr().out
    assert main(["tune", str(source), "--budget", "1s", "--resume"]) == 0
    assert "from before" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "x", "-3s", "0s", "1 week"])
def test_budgets_that_are_none(text: str) -> None:
    with pytest.raises(SettingError, match="90s"):
        seconds_of(text)


def test_budgets() -> None:
    assert [seconds_of(t) for t in ("90s", "1.5m", "2h", "7")] == [90.0, 90.0, 7200.0, 7.0]


class Fake(Runner):
    """Every third schedule crashes; the others are the faster, the more steps they have."""

    batches: int

    def measure(self, job: Job) -> dict[int, Outcome]:
        self.batches = getattr(self, "batches", 0) + 1
        if self.batches == 3:
            raise KeyboardInterrupt
        return {
            v: Outcome("crashed") if v % 3 == 2 else Outcome("ok", (1.0 / (1 + v), 1.0))
            for v in job.variants
        }


def tuner(cache: Path, resume: bool = True) -> Tuner:
    settings = replace(config.current(), cache_dir=cache)
    scop = parse_scop(MATMUL)
    builder = Builder.detect(settings)
    sizes = dict.fromkeys(scop.parameters, 32)
    analysis = Analysis(max_operations=settings.isl_max_operations)
    problem = Problem(State.start(scop), analysis, builder.machine, sizes, 1)
    signature = Trial(scop, sizes, builder).signature
    return Tuner(problem, signature, builder, lambda progress: None, resume)


def test_crashes_cost_one_schedule_and_interrupting_keeps_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "Runner", Fake)
    monkeypatch.setattr(tune, "ROUND", 4)
    session = tuner(tmp_path)
    choice = session.run(4.0)
    assert session.progress.bad > 0
    assert choice.seed.steps and choice.seconds is not None
    kept = kept_trials(tmp_path)
    assert len(kept) == session.progress.measured > 4

    class Unused(Fake):
        def measure(self, job: Job) -> dict[int, Outcome]:
            raise KeyboardInterrupt

    monkeypatch.setattr(tune, "Runner", Unused)
    again = tuner(tmp_path)
    assert again.run(4.0).script == choice.script
    assert again.progress.resumed == len(kept)


@pytest.mark.parametrize("kind", ["tune", "build"])
def test_kills_lose_nothing_that_was_finished(
    tmp_path: Path, kind: str, moments: Sequence[float] = (4.0, 1.0, 5.0)
) -> None:
    kept = [trial(tmp_path, kind, seconds) for seconds in moments]
    assert kept == sorted(kept)
