"""Triton kernels as users call them: interpreted in a process of their own, and without a GPU."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

import perfkit
from perfkit.cli import main
from perfkit.errors import GpuMissing, IllegalSchedule, SettingError
from tests.interpreted import run_interpreted

CASES = Path(__file__).with_name("triton_cases.py")


def scale(a, b):
    for i in range(a.shape[0]):
        b[i] = 2.0 * a[i]


def prefix(a):
    for i in range(1, a.shape[0]):
        a[i] += a[i - 1]


def test_interpreted_calls() -> None:
    run_interpreted(CASES)


def test_making_a_kernel_needs_neither_torch_nor_a_gpu() -> None:
    a = np.zeros(100)
    kernel = perfkit.optimize(scale, a, a.copy(), target="triton")
    assert "@triton.jit" in kernel.source and "MapGrid(i)" in kernel.schedule
    assert "predicted, not measured" in kernel.explain()
    if "TRITON_INTERPRET" not in os.environ:
        with pytest.raises(GpuMissing, match=r"not installed|no GPU"):
            _without_gpu(kernel, a)


def _without_gpu(kernel: object, a: np.ndarray) -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        raise GpuMissing("no GPU is what this test is about")
    kernel(a, a.copy())  # type: ignore[operator]


def test_settings_that_fit_no_triton_kernel() -> None:
    a = np.zeros(8)
    with pytest.raises(SettingError, match="'cuda' is none of"):
        perfkit.optimize(scale, a, a.copy(), target="cuda")  # type: ignore[call-overload]


def test_a_recurrence_over_programs_is_refused() -> None:
    with pytest.raises(IllegalSchedule, match="carried by grid loop i"):
        perfkit.optimize(prefix, np.zeros(8), target="triton", schedule="MapGrid(i)")


@pytest.mark.parametrize(
    "options",
    [["--measure", "2"], ["--in-place"], ["--check"], ["--schedule", "pluto"], ["--report=json"]],
)
def test_options_of_the_cpu_are_refused(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "a.c"
    source.write_text("int a;\n")
    assert main(["optimize", str(source), "--target", "triton", *options]) == 1
    assert "is for --target cpu" in capsys.readouterr().err


def test_a_file_without_loops_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "a.c", tmp_path / "a.py"
    source.write_text("int a;\n")
    assert main(["optimize", str(source), "--target", "triton", "-o", str(output)]) == 1
    assert "nothing was written" in capsys.readouterr().err and not output.exists()
