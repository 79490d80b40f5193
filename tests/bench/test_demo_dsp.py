"""The demo's second half: three ways that agree, and one line where torch is missing."""

from __future__ import annotations

import pytest

from bench import demo_dsp


def test_one_line_without_torch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_dsp, "find_spec", lambda name: None)
    assert demo_dsp.main() == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_three_ways_agree(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    assert demo_dsp.main() == 0
    found = capsys.readouterr().out
    assert found.count(" right\n") == 3 and "WRONG" not in found
