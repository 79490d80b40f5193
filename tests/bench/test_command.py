"""The command line of the benchmark, resuming, workers, and a tiny run from end to end."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.polybench import __main__ as command
from bench.polybench import peers, remote, results
from bench.polybench.measure_round import Measurement, Options
from bench.polybench.registry import programs
from bench.polybench.remote import PeerFailed, Worker

# --- arguments ----------------------------------------------------------------------------


def test_unknown_kernel_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(["--kernels", "gem,jacobi-2d"])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "no program is named 'gem'; did you mean gemm" in message


def test_unknown_peer_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--peers", "xyzzy"])
    assert "known: gcc, clang, polly" in capsys.readouterr().err


def test_names() -> None:
    assert command.names_of("b, a,b", ["a", "b"], "x") == ["b", "a"]
    assert command.names_of("all", ["a", "b"], "x") == ["a", "b"]
    with pytest.raises(argparse.ArgumentTypeError):
        command.names_of("c", ["a", "b"], "x")


def test_selection() -> None:
    def chosen(*words: str) -> list[str]:
        args = command.build_parser().parse_args(words)
        return [program.name for program in command.selected(args)]

    assert len(chosen()) == 30
    assert len(chosen("--suite", "both")) > 30
    assert "gemm" not in chosen("--suite", "extra")
    assert chosen("--kernels", "life,gemm") == ["gemm", "life"]


def test_options(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("Parallelize(i)\n")
    words = ["--dataset", "mini", "--peers", "none", "--threads", "3", "--schedule", str(script)]
    options = command.options_of(command.build_parser().parse_args(words))
    assert options.dataset == "MINI" and options.peers == () and options.threads == 3
    assert options.schedule == "Parallelize(i)\n"


@pytest.mark.parametrize("words", [["--threads", "0"], ["--dataset", "HUGE"], ["--resume"]])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(words)
    assert stop.value.code == 2


# --- resuming -----------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Nothing is run; the names of the programs that would have been."""
    names: list[str] = []

    class Quick:
        def __init__(self, program: Any, *_: Any) -> None:
            self.name = program.name

        def run(self) -> results.Row:
            names.append(self.name)
            if self.name == "lu" and names.count("lu") == 1:
                raise KeyboardInterrupt
            row = results.Row(self.name, "polybench", {})
            row.results["gcc"] = results.Result("gcc", [1.0] * 5, difference=0.0)
            return row

    monkeypatch.setattr(command, "Measurement", Quick)
    yield names


def test_interrupted_and_resumed(
    measured: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.json"
    words = ["--kernels", "gemm,lu,mvt", "--peers", "gcc", "--json", str(file)]
    assert command.main(words) == 130
    assert [row["kernel"] for row in json.loads(file.read_text())["rows"]] == ["gemm"]
    assert "gemm" in capsys.readouterr().out
    assert command.main([*words, "--resume"]) == 0
    assert measured == ["gemm", "lu", "lu", "mvt"]
    assert [row.kernel for row in results.load(file).rows] == ["gemm", "lu", "mvt"]
    capsys.readouterr()
    assert command.main(["--show", str(file)]) == 0
    assert measured == ["gemm", "lu", "lu", "mvt"]
    assert "mvt" in capsys.readouterr().out


def test_resuming_with_other_settings_is_refused(
    measured: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.json"
    words = ["--kernels", "gemm", "--peers", "gcc", "--json", str(file)]
    assert command.main([*words, "--dataset", "SMALL"]) == 0
    assert command.main([*words, "--dataset", "LARGE", "--resume"]) == 2
    assert "dataset was 'SMALL', now 'LARGE'" in capsys.readouterr().err


def test_programs_that_failed_are_run_again(tmp_path: Path) -> None:
    run = results.Run({"a": 1}, {"cpu": "x"}, {}, "", "", [results.Row("lu", "", {}, error="no")])
    results.save(run, tmp_path / "run.json")
    assert results.resume(run, tmp_path / "run.json").rows == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "rows": 3}'])
def test_another_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="is not a file of this benchmark"):
        results.load(path)


# --- workers ------------------------------------------------------------------------------


def test_the_same_threads_for_everybody() -> None:
    made = remote.environment(3, {"OMP_NUM_THREADS": "7", "HOME": "/"})
    assert {made[name] for name in remote.THREAD_VARIABLES} == {"3"}
    added = set(made) - set(remote.THREAD_VARIABLES) - {"PYTHONPATH", "HOME"}
    assert not added


def load(worker: Worker, tmp_path: Path, text: str) -> None:
    """Load jacobi-1d with another body in its place."""
    program = programs(names=["jacobi-1d"])[0]
    tools = peers.Tools("gcc", "", "", "", {})
    job = peers.Job(program, "TINY", tools, tmp_path)
    spec = job.library("strange", text, "gcc", ("-O0",))
    worker.ask(60.0, "load", program="jacobi-1d", dataset="TINY", seed=0, **spec)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    made = Worker("strange", 1, tmp_path / "log")
    yield made
    made.close()


def test_a_crash_is_reported(worker: Worker, tmp_path: Path) -> None:
    load(worker, tmp_path, "void jacobi_1d(void)\n{\n    __builtin_trap();\n}\n")
    with pytest.raises(PeerFailed, match="ended by signal SIG"):
        worker.ask(60.0, "once")
    with pytest.raises(PeerFailed, match="ended by"):
        worker.ask(60.0, "once")


def test_a_hang_is_ended(worker: Worker, tmp_path: Path) -> None:
    load(worker, tmp_path, "void jacobi_1d(void)\n{\n    for (volatile int i = 1; i;) ;\n}\n")
    start = time.monotonic()
    with pytest.raises(PeerFailed, match="no answer within 1 s"):
        worker.ask(1.0, "once")
    assert time.monotonic() - start < 30.0


def test_what_a_peer_prints_is_not_an_answer(worker: Worker, tmp_path: Path) -> None:
    text = '#include <stdio.h>\nvoid jacobi_1d(void)\n{\n    puts("{}");\n    fflush(stdout);\n}\n'
    load(worker, tmp_path, text)
    assert worker.ask(60.0, "once")["seconds"] > 0.0
    assert worker.settle() < 1.0


def test_errors_are_answers(worker: Worker) -> None:
    with pytest.raises(PeerFailed, match="RuntimeError: nothing is loaded"):
        worker.ask(60.0, "once")


def test_outputs_are_restored_before_every_call(worker: Worker, tmp_path: Path) -> None:
    """A body that adds 1 to A[0] adds it to the original value each time."""
    text = "void jacobi_1d(int t, int n, double *A, double *B)\n{\n    A[0] += 1.0;\n}\n"
    load(worker, tmp_path, text)
    for _ in range(2):
        worker.ask(60.0, "sample")
    worker.ask(60.0, "outputs", folder=str(tmp_path))
    before = programs(names=["jacobi-1d"])[0].arguments("TINY", 0)["A"]
    assert np.load(tmp_path / "A.npy")[0] == before[0] + 1.0


def test_ctrl_c_does_not_reach_the_workers(worker: Worker) -> None:
    assert os.getpgid(worker.pid) != os.getpgid(0)


# --- from end to end ----------------------------------------------------------------------


def test_a_wrong_peer_is_found_and_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(job: peers.Job, label: str) -> Any:
        text = job.text.replace("0.33333", "0.4").replace("+ 1]", "]")
        return job.library(label, text, job.tools.gcc, ("-O1",))

    monkeypatch.setattr(peers, "PEERS", {"gcc": {"gcc": peers._gcc}, "clang": {"clang": broken}})
    tools = peers.Tools("gcc", "gcc", "", "", {})
    options = Options("MINI", 1, ("clang",), ours=False, rounds=2, check_only=False)
    program = programs(names=["jacobi-1d"])[0]
    row = Measurement(program, options, tools, tmp_path, lambda text: None).run()
    assert row.results["clang"].wrong and not row.results["clang"].seconds
    assert len(row.results["gcc"].seconds) == 2


def test_tiny_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.json"
    words = ["--dataset", "MINI", "--kernels", "gemm,jacobi-1d", "--peers", "gcc,looper,isl-pluto"]
    words += ["--threads", "2", "--rounds", "3", "--details", "--json", str(file)]
    words += ["--beam-width", "4", "--no-pluto-seeds"]
    status = command.main(words)
    text = capsys.readouterr().out
    run = results.load(file)
    for row in run.rows:
        assert not row.error
        assert row.results["gcc"].usable and len(row.results["gcc"].seconds) >= 3
        for name in ("perfkit", "looper", "isl-pluto"):
            assert row.results[name].usable, row.results[name].error
        assert "Vectorize" not in row.results["looper"].facts["schedule"]
        assert "Pack" not in row.results["isl-pluto"].facts["schedule"]
    assert status == 0, text
    assert "geomean" in text and "jacobi-1d" in text
    assert "time to optimize (looper)" in text
