"""Many C files into one shared object, and compiling them under warnings."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from perfkit import config
from perfkit.runtime.build import LIBRARIES, SHARED_FLAGS, Toolchain

QUICK = ("-O1", "-ffp-contract=off", "-w")
FULL = ("-O3", "-march=native", "-ffp-contract=off", "-w")
STRICT = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fopenmp", "-O2", "-c")
"""Not ``-fsyntax-only``: some warnings come from the optimizer. No ``-march``: a user's file."""
TIMEOUT = 600


def build(
    folder: Path, sources: Mapping[str, str], flags: Sequence[str], output: str
) -> tuple[Path, dict[str, str]]:
    """Compile and link; returns the shared object and, by label, what did not compile."""
    toolchain = Toolchain.detect(config.current())
    files: dict[str, str] = {}
    for label, source in sources.items():
        path = folder / f"{label}.c"
        path.write_bytes(source.encode("latin-1"))
        files[label] = str(path)
    command = [toolchain.path, *SHARED_FLAGS, *flags, toolchain.openmp_flag]
    library = folder / output
    problems: dict[str, str] = {}
    if files and _run([*command, "-o", str(library), *files.values(), *LIBRARIES]):
        for label, file in list(files.items()):
            problem = _run([*command, "-o", str(folder / "one.so"), file, *LIBRARIES])
            if problem:
                problems[label] = problem
                del files[label]
        if files:
            _run([*command, "-o", str(library), *files.values(), *LIBRARIES])
    return library, problems


def warnings(folder: Path, compiler: str, sources: Mapping[str, str]) -> dict[str, str]:
    """What the compiler says, by label, against files that must compile without a warning."""
    files = {}
    for label, source in sources.items():
        path = folder / f"{label}.c"
        path.write_bytes(source.encode("latin-1"))
        files[label] = str(path)
    command = [compiler, *STRICT]
    if not files or not _run([*command, *files.values()], folder):
        return {}
    found = {label: _run([*command, file], folder) for label, file in files.items()}
    return {label: problem for label, problem in found.items() if problem}


def _run(command: list[str], folder: Path | None = None) -> str:
    """What the compiler said when it failed; "" when it did not."""
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False,
        cwd=folder,
    )  # fmt: skip
    if done.returncode == 0:
        return ""
    return done.stderr[:2000] or f"the compiler failed with {done.returncode}"
