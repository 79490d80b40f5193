"""The command that compiles every program for sm_90: one clear line where it cannot."""

from __future__ import annotations

import importlib.util

import pytest

from bench.triton_compile import main


@pytest.fixture
def no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "triton" else real(name)
    )


def test_a_missing_package_is_named(no_triton: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gemm"]) == 1
    assert capsys.readouterr().err == "bench.triton_compile needs triton: pip install '.[gpu]'\n"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nope", "gemm"], "no such program: nope"),
        (["gemm", "--size", "HUGE"], "no size HUGE in gemm"),
        (["gemm", "--storage", "float64=bfloat16"], "write float32=float16"),
        (["gemm", "--storage", "nonsense"], "write float32=float16"),
    ],
)
def test_wrong_arguments_end_in_one_line(
    arguments: list[str], why: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("bench.triton_compile: ") and why in error and error.count("\n") == 1
