"""A small fixed share of the fuzz of GPU mappings; ``tests.codegen.triton_fuzz`` does more."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.codegen.triton_all import ROOT

pytest.importorskip("torch")
pytest.importorskip("triton")


def test_random_programs_agree_under_random_mappings() -> None:
    command = [sys.executable, "-m", "tests.codegen.triton_fuzz", "--cases", "12", "--seed", "500"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    agreed = int(done.stdout.partition(" agrees")[0].split()[-1])
    assert agreed >= 4
