"""Rows of a benchmark run, and the JSON file they are kept in."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import perfkit
from perfkit.runtime.machine import Machine

FORMAT = 1
_PACKAGES = ("numpy", "scipy", "numba", "islpy")
_RUNTIME_VARIABLES = re.compile(r"(OMP|GOMP|KMP|OPENBLAS|MKL|BLIS|NUMBA|PERFKIT)_")


@dataclass
class Result:
    """What one candidate did on one program.

    ``seconds`` are in rounds: the i-th of all candidates belong together. ``difference`` is the
    largest relative difference from the reference, None where the outputs were never seen.
    """

    peer: str
    seconds: list[float] = field(default_factory=list)
    error: str = ""
    wrong: bool = False
    difference: float | None = None
    stopped: bool = False  # run once only, being far slower than the best
    first_seconds: float | None = None  # the untimed, cold call whose outputs were checked
    settle_seconds: float = 0.0  # longest wait for its threads to go to sleep
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        return bool(self.seconds) and not self.wrong and not self.error

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else math.inf


@dataclass
class Row:
    """One program: every candidate's result, and why others are missing."""

    kernel: str
    suite: str
    sizes: dict[str, int]
    commit: str = ""
    tolerance: float = 0.0
    rounds: int = 0
    error: str = ""
    results: dict[str, Result] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def best(self, peer: str) -> Result | None:
        """The fastest usable candidate of a peer."""
        found = [r for r in self.results.values() if r.peer == peer and r.usable]
        return min(found, key=lambda result: result.median, default=None)

    @property
    def peers(self) -> list[str]:
        """Peers with any candidate, missing ones included, in order."""
        names = [result.peer for result in self.results.values()]
        return list(dict.fromkeys(names))


@dataclass
class Run:
    """A whole run: what it ran on, how, and its rows."""

    settings: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    commit: str
    started: str
    rows: list[Row] = field(default_factory=list)

    def row(self, kernel: str) -> Row | None:
        return next((row for row in self.rows if row.kernel == kernel), None)


def begin(settings: Mapping[str, Any], tools: Mapping[str, str]) -> Run:
    """A run without rows, on this machine."""
    return Run(
        settings=dict(settings),
        machine=describe_machine(),
        versions={**tools, **package_versions()},
        commit=commit(),
        started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )


def describe_machine() -> dict[str, Any]:
    """The hardware, the system, and variables of the environment that shape threads."""
    described = dataclasses.asdict(Machine.detect())
    described["system"] = f"{platform.system()} {platform.release()}"
    variables = {k: v for k, v in sorted(os.environ.items()) if _RUNTIME_VARIABLES.match(k)}
    # Folders say nothing about speed, and name the user.
    described["environment"] = {k: v for k, v in variables.items() if not k.endswith("_DIR")}
    return described


def package_versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "perfkit": perfkit.__version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit this runs from, "+" appended when tracked files differ; "" without git."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def save(run: Run, path: Path) -> None:
    """Write the file so that a reader sees the old or the new one, never half of one."""
    content = {"format": FORMAT, **dataclasses.asdict(run)}
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(_plain(content), file, indent=1, allow_nan=False)
            file.write("\n")
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _plain(value: Any) -> Any:
    """JSON has no infinity: None for it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def load(path: Path) -> Run:
    """Read a file that :func:`save` wrote.

    Raises:
        ValueError: it is something else.
    """
    try:
        content = json.loads(path.read_text())
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        rows = [
            Row(**{**row, "results": {k: Result(**v) for k, v in row["results"].items()}})
            for row in content.pop("rows")
        ]
        return Run(**content, rows=rows)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a file of this benchmark: {error}") from error


def resume(run: Run, path: Path) -> Run:
    """The run of the file, to be continued with the settings of ``run``.

    Raises:
        ValueError: the file was measured with other settings or on another machine.
    """
    old = load(path)
    differing = [
        f"{name} was {old.settings.get(name)!r}, now {value!r}"
        for name, value in run.settings.items()
        if old.settings.get(name) != value
    ]
    if old.machine.get("cpu") != run.machine.get("cpu"):
        differing.append(f"machine was {old.machine.get('cpu')}")
    if differing:
        raise ValueError(f"cannot resume {path}: {'; '.join(differing)}")
    old.rows = [row for row in old.rows if not row.error]
    return old
