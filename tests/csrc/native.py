"""Builds this folder's C++ programs; they are no part of the installed package."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"


def compiler() -> str | None:
    return shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")


def build(source: str, target: Path, *flags: str, include: Path = CSRC) -> Path:
    """Compile ``source`` of this folder; raises with the compiler's messages.

    ``include`` may hold a changed copy of a folder of ``csrc``.
    """
    found = compiler()
    assert found is not None
    folders = [f"-I{folder}" for folder in (include, CSRC, HERE)]
    command = [found, "-std=c++17", "-Wall", "-Wextra", "-Werror", *folders]
    done = subprocess.run(
        [*command, *flags, str(HERE / source), "-o", str(target), "-pthread"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return target


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), *map(str, arguments)], capture_output=True, text=True, timeout=300
    )
