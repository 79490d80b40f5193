"""Without torch, ``python -m bench.dsp`` says so in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_TORCH = (
    "import runpy, sys; sys.modules['torch'] = None; "
    "runpy.run_module('bench.dsp', run_name='__main__')"
)


def test_one_line_and_no_traceback() -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert found.returncode == 1
    assert found.stderr.splitlines() == ["bench.dsp needs torch: pip install '.[torch]'"]
    assert not found.stdout
