"""Registers and spills of the CUDA kernels; compiled where nvcc is found, no GPU needed."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.csrc.native import CSRC

SCRIPT = CSRC / "cuda" / "registers.py"
NVCC = os.environ.get("CUDACXX") or shutil.which("nvcc")
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="needs nvcc")

LOG = """\
ptxas info    : Compiling entry function \
'_ZN7perfkit4cuda14forward_kernelINS0_12ForwardShapeINS0_4Bf16ELi72ELb1EEEEEvNS0_7ProblemE' \
for 'sm_90a'
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 129 registers, used 1 barriers
"""


def test_a_log_is_read_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    # Dataclasses look their module up.
    monkeypatch.setitem(sys.modules, "registers", sys)
    script = runpy.run_path(str(SCRIPT), run_name="registers")
    (kernel,) = script["read_log"](LOG)
    assert (kernel.name, kernel.registers, kernel.spilled) == ("forward_kernel Bf16 72 1", 129, 24)
    found = script["violations"]([kernel], {kernel.name: 128})
    assert ["spills" in found[0], "129 registers" in found[1]] == [True, True]
    assert "--update" in script["violations"]([kernel], {})[-1]


KERNELS = {
    "forward": ("launch_forward", ["forward_kernel {} 0", "forward_kernel {} 1"]),
    "backward": ("launch_backward", [
        f"backward_{which}_kernel {{}} {general}" for which in ("kv", "q") for general in (0, 1)
    ]),
    "switch": ("launch_push", ["push_kernel {} 0", "pull_kernel {} 0"]),
}  # fmt: skip


def test_every_kernel_has_its_own_file_and_a_budget() -> None:
    budget = (CSRC / "cuda" / "budget.txt").read_text()
    sources = sorted((CSRC / "cuda" / "instances").glob("*.cu"))
    assert len(sources) == 3 * 6 * 2
    for source in sources:
        what, dim, element = source.stem.split("_")
        launch, kernels = KERNELS[what]
        assert f"{launch}<{element.capitalize()}, {dim}>" in source.read_text()
        for kernel in kernels:
            assert kernel.format(f"{element.capitalize()} {dim}") + " " in budget


@needs_nvcc
@pytest.mark.parametrize("stem", ["forward_72_bf16", "backward_128_bf16"])
def test_no_spill_and_within_budget(stem: str) -> None:
    source = CSRC / "cuda" / "instances" / f"{stem}.cu"
    command = [sys.executable, str(SCRIPT), "--nvcc", str(NVCC), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[1-9]\d* kernels of 1 files, 0 problems", done.stdout)


@needs_nvcc
def test_a_spill_is_reported(tmp_path: Path) -> None:
    source = tmp_path / "spill.cu"
    source.write_text(
        "#include \"cuda/kernels.cuh\"\n"
        "__global__ void __launch_bounds__(1024) spilling_kernel(float* p) {\n"
        "  float x[128];\n"
        "  for (int i = 0; i < 128; ++i) x[i] = p[i * 1024 + threadIdx.x];\n"
        "  __syncthreads();\n"
        "  for (int i = 0; i < 128; ++i) p[i * 1024 + threadIdx.x] = x[i] * x[127 - i];\n"
        "}\n"
    )  # fmt: skip
    command = [sys.executable, str(SCRIPT), "--nvcc", str(NVCC), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "bytes of stack and spills" in done.stderr
