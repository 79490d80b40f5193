"""Another process neither searches nor compiles; changed sources do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import json, sys, torch
from perfkit import backend
from perfkit.backend.program import counters
torch.manual_seed(0)
def f(x):
    return torch.cumsum(torch.tanh(x), -1) * 2
x = torch.randn(8, 33)
y = torch.compile(f, backend=backend.perfkit, options={"keep": True})(x)
c = counters()
right = bool(torch.allclose(y, f(x), atol=1e-6))
print(json.dumps([c.lowered, c.compiled, c.loaded, c.fallbacks, right]))
"""


def run(package: Path, folder: Path) -> list[int]:
    env = {
        **os.environ, "PYTHONPATH": str(package), "PERFKIT_CACHE_DIR": str(folder / "perfkit"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, cwd=folder, capture_output=True, text=True,
        timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[int] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_second_process_searches_and_compiles_nothing(tmp_path: Path) -> None:
    assert run(ROOT, tmp_path) == [1, 1, 0, 0, True]
    assert run(ROOT, tmp_path) == [0, 0, 1, 0, True]
    # A damaged entry is made again.
    for path in (tmp_path / "perfkit" / "regions").iterdir():
        path.write_text("damaged")
    assert run(ROOT, tmp_path) == [1, 1, 0, 0, True]


def test_changed_sources_invalidate(tmp_path: Path) -> None:
    package = tmp_path / "copy"
    shutil.copytree(ROOT / "perfkit", package / "perfkit")
    assert run(package, tmp_path) == [1, 1, 0, 0, True]
    with (package / "perfkit" / "backend" / "regions.py").open("a") as file:
        file.write("\n# changed\n")
    assert run(package, tmp_path) == [1, 1, 0, 0, True]
