"""The attention bench runs, checks before it times, and writes what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from bench import attention as bench


def test_a_small_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "rows.json"
    sizes = ["--lengths", "64", "--dims", "16,24", "--heads", "1", "--rounds", "2"]
    assert bench.main([*sizes, "--threads", "1", "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert len(found["rows"]) == 8 and set(found["geomeans"]) == {
        "fp32 forward", "fp32 backward", "bf16 forward", "bf16 backward",
    }  # fmt: skip
    assert all(row["ours"] > 0 and row["ratio"] > 0 for row in found["rows"])
    assert "geomean bf16 backward" in capsys.readouterr().out


def test_a_wrong_result_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "theirs", lambda q, k, v: bench.ours(q, k, v) * 1.01)
    with pytest.raises(RuntimeError, match="differs"):
        next(bench.measure("fp32", 64, 16, 1, 1))


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--dtypes", "fp8"], ["--heads", "0"]])
def test_bad_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(arguments)
