"""Killing ``dataset build`` and ``tune`` at random moments: ``python -m tests.learn.kill tune``.

After every kill what was finished before must still be there, readable, and the next run must go on
from it. Each trial prints what is kept.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

from perfkit.learn import dataset
from perfkit.search.store import NAME

PROGRAM = """
void product(double A[48][48], double B[48][48], double C[48][48]) {
#pragma scop
  for (int i = 0; i < 48; i++)
    for (int j = 0; j < 48; j++)
      for (int k = 0; k < 48; k++)
        C[i][j] += A[i][k] * B[k][j];
#pragma endscop
}
"""
_MEASURED = re.compile(r"(\d+) schedules measured")


def tune_command(folder: Path) -> list[str]:
    source = folder / "product.c"
    source.write_text(PROGRAM)
    return ["tune", str(source), "--budget", "600s", "--resume"]


def build_command(folder: Path) -> list[str]:
    return ["dataset", "build", "--hours", "1", "--out", str(folder / "data"), "--variants", "4"]


def kept_trials(folder: Path) -> set[object]:
    """The scripts of the stored trials. Fails when the store is damaged."""
    path = folder / NAME
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path, timeout=10)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if db.execute("PRAGMA user_version").fetchone() == (0,):
            return set()
        return {script for (script,) in db.execute("SELECT script FROM trials")}


def kept_programs(folder: Path) -> set[object]:
    """Numbers of the programs that are measured or ready to be. Fails on damaged files."""
    data = folder / "data"
    ready = {int(p.parent.name) for p in data.glob("pending/[0-9]*/program.json")}
    done = dataset.load(data) if dataset.shards(data) else []
    return ready | {e.sample.number for e in done}


KINDS: dict[str, tuple[Callable[[Path], list[str]], Callable[[Path], set[object]]]] = {
    "tune": (tune_command, kept_trials),
    "build": (build_command, kept_programs),
}


def run_and_kill(folder: Path, kind: str, seconds: float) -> str:
    """Start the command, kill all its processes after so long; returns what it had reported."""
    command = [sys.executable, "-m", "perfkit.cli", *KINDS[kind][0](folder)]
    environment = {**os.environ, "PERFKIT_CACHE_DIR": str(folder), "PERFKIT_SEARCH_SECONDS": "0.5"}
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    )  # fmt: skip
    time.sleep(seconds)
    os.killpg(child.pid, signal.SIGKILL)
    return child.communicate()[1]


def trial(folder: Path, kind: str, seconds: float) -> int:
    """One kill; returns how much is kept. Raises AssertionError when something was lost."""
    keep = KINDS[kind][1]
    before = keep(folder)
    said = run_and_kill(folder, kind, seconds)
    after = keep(folder)
    assert before <= after, f"lost after a kill: {sorted(map(str, before - after))}"
    reported = [int(n) for n in _MEASURED.findall(said)] if kind == "tune" else []
    assert len(after) >= max(reported, default=0), f"{len(after)} of {reported[-1]} are stored"
    return len(after)


def main() -> None:
    """Kill so many times and print what is kept."""
    parser = argparse.ArgumentParser(description="Kill a long command at random moments.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--longest", type=float, default=15.0, metavar="S")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="perfkit-kill-") as folder:
        for k in range(args.trials):
            seconds = rng.uniform(0.2, args.longest)
            kept = trial(Path(folder), args.kind, seconds)
            print(f"kill {k + 1} after {seconds:.1f} s: {kept} kept", flush=True)


if __name__ == "__main__":
    main()
