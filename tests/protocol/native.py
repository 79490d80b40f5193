"""Builds this folder's C++ programs; they are no part of the installed package."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"


def compiler() -> str | None:
    return shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")


def build(folder: Path, source: str, *flags: str, extra: tuple[str, ...] = ()) -> Path:
    """Compile ``source`` of this folder into ``folder``; raises with the compiler's messages."""
    found = compiler()
    assert found is not None
    target = folder / Path(source).stem
    files = [str(HERE / source), *(str(CSRC / name) for name in extra)]
    command = [found, "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{CSRC}", f"-I{HERE}"]
    done = subprocess.run(
        [*command, *flags, *files, "-o", str(target), "-pthread"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return target
