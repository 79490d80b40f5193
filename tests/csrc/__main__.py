"""``python -m tests.csrc``: many random problems of every head dimension on the emulator."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.csrc.native import build, run

DIMS = (32, 64, 72, 80, 96, 128)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.csrc", description=__doc__)
    parser.add_argument("--trials", type=int, default=50, help="per head dimension")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for dim in DIMS:
            target = Path(folder) / str(dim)
            program = build("attention_emulated.cpp", target, "-O2", f"-DDIM={dim}")
            done = run(program, given.trials, given.seed, "backward")
            good = done.stdout.count("ok ")
            sys.stdout.write(f"D = {dim}: {good} of {given.trials} right\n")
            if done.returncode:
                failures += 1
                sys.stdout.write(done.stdout + done.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
