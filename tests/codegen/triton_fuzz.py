"""Random programs under random GPU mappings, interpreted, against the oracle.

``python -m tests.codegen.triton_fuzz [--cases 200] [--seed 0]``: each case draws a program, an
order of it, blocks, perhaps a sum in two phases, and the order in which the programs of every grid
run. What perfkit refuses is counted, a refusal by isl's budget too; a wrong result is printed with
its program and script, and ends in status 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np

from perfkit.analysis.dependences import Analysis
from perfkit.codegen.interpret import run as oracle
from perfkit.codegen.triton import generate_module
from perfkit.errors import BudgetExceeded, ScheduleError
from perfkit.runtime.triton_compile import load_module
from perfkit.runtime.triton_kernel import emulated_libdevice
from perfkit.schedule.gpu_mapping import Blocks, mappings
from perfkit.schedule.gpu_orders import orders
from perfkit.schedule.rfactor import Rfactor
from perfkit.schedule.state import State
from perfkit.schedule.steps import Steps
from tests.codegen.harness import signature
from tests.codegen.triton_all import ROOT
from tests.codegen.triton_worker import ORDERS, grid_order, run
from tests.fuzz.check import BUDGET, agree, random_arrays
from tests.fuzz.programs import random_program
from tests.programs_ir import parse_scop

SIZES = (3, 6, 13)


def case(seed: int, folder: Path) -> tuple[str, str]:
    """What came of one case ("agrees", "refused", "over budget" or "wrong"), and its text."""
    rng = Random(f"gpu-{seed}")
    text = random_program(rng)
    fp = rng.choice(("strict", "reassociate"))
    scop = parse_scop(text)
    analysis = Analysis(BUDGET)
    try:
        _, steps = rng.choice(list(orders(Steps(State.start(scop, fp), analysis))))
        steps = steps.copy()
        if rng.random() < 0.5:
            statement = rng.choice(steps.state.scop.statements)
            loop = rng.choice([*statement.iterators, "i"])
            steps.attempt(Rfactor(statement.name, loop, rng.choice((2, 3, 4))))
        side = (2, 4, 8)
        blocks = tuple(Blocks(*(rng.choice(side) for _ in range(4))) for _ in range(2))
        plan = rng.choice(list(mappings("fuzz", steps, (*blocks, Blocks(16, 16, 16, 32)))))
        seeded = plan.seed()
        text = f"seed {seed}, fp={fp}\n{text}\nscript:\n{seeded.script}"
        module = generate_module(seeded.state, signature(scop, "kernel"), analysis)
    except BudgetExceeded:
        return "over budget", text
    except ScheduleError as error:
        return "refused", f"{text}\n{error}"
    source = load_module(module, folder)
    source.libdevice = emulated_libdevice()  # type: ignore[attr-defined]
    for size in SIZES:
        sizes = dict.fromkeys(scop.parameters, size)
        want = random_arrays(scop, sizes, seed)
        got = {n: a.copy() for n, a in want.items()}
        scalars = {s.name: 1.5 for s in scop.scalars}
        with np.errstate(all="ignore"):
            oracle(scop, sizes, want, scalars)
            with grid_order(ORDERS[rng.choice(sorted(ORDERS))]):
                run(source, module.entry, {**sizes, **scalars, **got})
        for name in want:
            if not agree(got[name], want[name], fp):
                return "wrong", f"{text}\nsize {size}, array {name}\n{module.text}"
    return "agrees", text


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="the first one; the others follow")
    args = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") != "1":
        again = [sys.executable, "-m", "tests.codegen.triton_fuzz", "--cases", str(args.cases)]
        return subprocess.run(
            [*again, "--seed", str(args.seed)], cwd=ROOT, check=False,
            env={**os.environ, "TRITON_INTERPRET": "1"},
        ).returncode  # fmt: skip
    found: Counter[str] = Counter()
    for seed in range(args.seed, args.seed + args.cases):
        with tempfile.TemporaryDirectory() as folder:
            outcome, text = case(seed, Path(folder))
        found[outcome] += 1
        if outcome == "wrong":
            sys.stdout.write(f"{text}\nWRONG\n")
    sys.stdout.write(", ".join(f"{n} {what}" for what, n in sorted(found.items())) + "\n")
    return int(bool(found["wrong"]))


if __name__ == "__main__":
    raise SystemExit(main())
