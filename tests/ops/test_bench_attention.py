"""The attention bench runs, checks before it times, and writes what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from bench.attention import __main__ as command
from bench.attention import alone, fused


def test_a_small_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "rows.json"
    sizes = ["--lengths", "64", "--dims", "16,24", "--heads", "1", "--rounds", "2"]
    assert command.main([*sizes, "--threads", "1", "--json", str(report)]) == 0
    found = json.loads(report.read_text())["alone"]
    assert len(found["rows"]) == 8 and set(found["geomeans"]) == {
        "fp32 forward", "fp32 backward", "bf16 forward", "bf16 backward",
    }  # fmt: skip
    assert all(row["ours"] > 0 and row["ratio"] > 0 for row in found["rows"])
    assert "geomean bf16 backward" in capsys.readouterr().out


def test_a_second_run_replaces_the_same_sizes_only(tmp_path: Path) -> None:
    report = tmp_path / "rows.json"
    common = ["--lengths", "64", "--heads", "1", "--rounds", "1", "--dtypes", "fp32"]
    common += ["--directions", "forward", "--threads", "1", "--json", str(report)]
    for dims in ("16,24", "24,32"):
        assert command.main([*common, "--dims", dims]) == 0
    found = json.loads(report.read_text())["alone"]
    assert sorted(row["dim"] for row in found["rows"]) == [16, 24, 32]
    assert list(found["geomeans"]) == ["fp32 forward"]


def test_a_wrong_result_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "theirs", lambda q, k, v: alone.ours(q, k, v) * 1.01)
    with pytest.raises(RuntimeError, match="differs"):
        next(alone.measure("fp32", 64, 16, 1, 1))


def test_switch_attention_switch_in_five_ways_and_over_a_link() -> None:
    small = fused.Size(4, 6, 1, heads=2, dim=8)
    assert set(fused.run_compare(2, small, 1, False)) == {
        "collectives", "pipelined", "zero-copy", "fused", "alone",
    }  # fmt: skip
    assert set(fused.run_compare(2, small, 1, True)) == {"collectives", "pipelined", "fused"}
    # 576 of 2304 bytes leave each rank before and 192 after; a slow link is waited for.
    (_, none, _), (rate, link, spent) = fused.run_replay(2, small, 1, [1e5])
    assert none == 0 and rate == 1e5 and link == pytest.approx(0.01536) and spent > link


@pytest.mark.parametrize(
    "arguments",
    [["--rounds", "0"], ["--dtypes", "fp8"], ["--ranks", "0"], ["--directions", "sideways"]],
)
def test_bad_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)
