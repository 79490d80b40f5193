"""The command that compiles every program for sm_90: one clear line where it cannot."""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import pytest

from bench.triton_compile import main, merged


@pytest.fixture
def no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "triton" else real(name)
    )


def test_a_missing_package_is_named(no_triton: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gemm"]) == 1
    missing = r"(torch and )?triton"  # torch too, where it is not installed
    told = capsys.readouterr().err
    assert re.fullmatch(rf"bench.triton_compile needs {missing}: pip install '.\[gpu\]'\n", told)


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


def test_programs_of_the_same_settings_join_in_the_file() -> None:
    def report(fp: str, programs: dict[str, int], failed: dict[str, str]) -> dict[str, Any]:
        kernels = {n: {"kernels": [{"kernel": f"{n}_1", "spills": s}]} for n, s in programs.items()}
        spilled = [f"{n}_1" for n, s in programs.items() if s]
        return {"fp": fp, "programs": kernels, "failed": failed, "spilled": spilled}

    runs = merged([], report("strict", {"a": 3, "b": 0}, {"c": "why"}))
    runs = merged(runs, report("reassociate", {"a": 1}, {}))
    runs = merged(runs, report("strict", {"a": 0, "c": 2}, {"b": "why"}))
    assert [r["fp"] for r in runs] == ["strict", "reassociate"]
    assert set(runs[0]["programs"]) == {"a", "c"} and set(runs[0]["failed"]) == {"b"}
    assert runs[0]["spilled"] == ["c_1"]
