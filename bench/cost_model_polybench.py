"""Measured schedules of PolyBench, which no model is trained on: the last split of the table.

``python -m bench.cost_model_polybench prepare DIR`` draws schedules of every kernel (the compiler's
seeds, and results of the search from best to worst) and compiles them; ``measure DIR`` runs what
has no times yet, alone on the machine; ``bench.cost_model --polybench DIR`` reads the result. One
JSON file per kernel and data set size, written as a whole.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.polybench.registry import POLYBENCH, programs
from perfkit import config
from perfkit.analysis.dependences import Analysis
from perfkit.codegen.check import example_sizes
from perfkit.codegen.target import Target
from perfkit.cost.device import Device
from perfkit.cost.features import Extractor
from perfkit.errors import PerfkitError
from perfkit.frontends.python import from_function
from perfkit.ir.scop import Scop
from perfkit.learn.batch import compile_batch, generate
from perfkit.learn.examples import Group, apply
from perfkit.learn.looper import looped
from perfkit.learn.measure import Job, Runner
from perfkit.runtime.build import Toolchain
from perfkit.runtime.machine import Machine
from perfkit.runtime.measure import machine_lock
from perfkit.runtime.signature import Signature
from perfkit.schedule.state import State
from perfkit.search.auto import Problem, candidates
from perfkit.search.beam import Plan, Ranked

LONGEST = 60_000
"""Characters of C of one schedule."""

PLAN = Plan(candidates=120, seconds=12.0)


def _program(name: str, dataset: str) -> tuple[Scop, Signature, dict[str, int]]:
    """A kernel and its sizes."""
    program = programs(names=[name])[0]
    arguments = tuple(program.arguments(dataset).values())
    scop, signature = from_function(program.function, *arguments)
    known = example_sizes(signature, arguments, {})
    return scop, signature, {n: known[n] for n in scop.parameters}


def drawn(found: Sequence[Ranked], count: int) -> list[Ranked]:
    """The original, all seeds, and results of the search at even distances in their order."""
    original = next(r for r in found if r.seed.name == "original")
    known = [r for r in found if r.origin == "seed" and r is not original][: count - 1]
    rest = sorted((r for r in found if r.origin != "seed"), key=lambda r: r.score.seconds)
    places = np.linspace(0, len(rest) - 1, max(0, count - 1 - len(known))).round().astype(int)
    return [original, *known, *(rest[k] for k in sorted(set(places.tolist())) if rest)]


def prepare(folder: Path, name: str, dataset: str, count: int, settings: config.Settings) -> int:
    """Compile up to ``count`` schedules of a kernel; returns how many."""
    scop, signature, sizes = _program(name, dataset)
    analysis = Analysis(settings.isl_max_operations, parallel_reductions=True)
    machine = Machine.detect()
    problem = Problem(State.start(scop), analysis, machine, sizes, settings.threads)
    chosen = drawn(candidates(problem, "beam", PLAN), count)
    target = Target(problem.simd_bytes, settings.threads)
    texts = [
        generate(r.seed.state, replace(signature, name=f"v{k}"), analysis, target, LONGEST)
        for k, r in enumerate(chosen)
    ]
    batch = compile_batch(texts, Toolchain.detect(settings), settings)
    if batch.library is None or 0 not in batch.compiled:
        raise PerfkitError(f"{name}: the original order does not compile")
    library = folder / f"{name}-{dataset}.so"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.move(batch.library, library)
    shutil.rmtree(batch.library.parent, ignore_errors=True)
    job = Job.of(library.absolute(), batch.compiled, scop, signature, sizes)
    scripts = {k: chosen[k].seed.script for k in batch.compiled}
    _write(folder, name, dataset, {"job": json.loads(job.text()), "scripts": scripts})
    return len(batch.compiled)


def measure(path: Path, runner: Runner) -> int:
    """Run the schedules of one file; returns how many have times."""
    plain = json.loads(path.read_text())
    job = plain["job"]
    restored = Job(
        Path(job["library"]), tuple(job["variants"]), tuple(job["sizes"]),
        tuple((n, d, tuple(s), r) for n, d, s, r in job["arrays"]), tuple(job["scalars"]),
        tuple((k, n) for k, n in job["order"]), longest=float("inf"), stop=20.0,
    )  # fmt: skip
    with machine_lock():
        outcomes = runner.measure(restored)
    plain["seconds"] = {k: o.seconds for k, o in outcomes.items() if o.status == "ok"}
    plain["status"] = {k: o.status for k, o in outcomes.items() if o.status != "ok"}
    plain["machine"] = Machine.detect().key()
    name, _, dataset = path.stem.rpartition("-")
    _write(path.parent, name, dataset, plain)
    return len(plain["seconds"])


def _write(folder: Path, name: str, dataset: str, plain: dict[str, Any]) -> None:
    path = folder / f"{name}-{dataset}.json"
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(plain) + "\n")
    aside.replace(path)


def groups(folder: Path, device: Device) -> list[Group]:
    """The examples of all measured kernels."""
    found: list[Group] = []
    for path in sorted(folder.glob("*.json")):
        plain = json.loads(path.read_text())
        if "seconds" in plain:
            group = _group(path.stem, plain, device)
            found += [group] if group is not None else []
    return found


def _group(stem: str, plain: dict[str, Any], device: Device) -> Group | None:
    name, _, dataset = stem.rpartition("-")
    scop, _, sizes = _program(name, dataset)
    analysis = Analysis(parallel_reductions=True)
    start = State.start(scop)
    extractor = Extractor(analysis.polyhedra(scop), scop, sizes, device)
    rows = []
    for number, taken in plain["seconds"].items():
        try:
            state = apply(start, plain["scripts"][number], analysis)
            poly = analysis.polyhedra(state.scop)
            tokens = extractor.tokens(poly, state.scop, state.tree)
        except PerfkitError as error:
            sys.stderr.write(f"{stem}: schedule {number} is left out: {error}\n")
            continue
        times = sorted(taken)
        again = times[1] if len(times) > 1 else float("nan")
        view = looped(state.scop, state.tree, sizes)
        rows.append((number, tokens, view, times[0], again))
    if len(rows) < 3:
        return None
    numbers, tokens_of, views, seconds, again_of = zip(*rows, strict=True)
    original = numbers.index("0") if "0" in numbers else -1
    return Group(stem, "polybench", "polybench", tokens_of, views, np.array(seconds),
                 np.array(again_of), original)  # fmt: skip


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description="Measured schedules of PolyBench.")
    parser.add_argument("action", choices=("prepare", "measure"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dataset", default="MEDIUM")
    parser.add_argument("--kernels", default=",".join(POLYBENCH))
    parser.add_argument("--count", type=int, default=40)
    args = parser.parse_args()
    settings = config.current()
    for name in args.kernels.split(","):
        path = args.folder / f"{name}-{args.dataset}.json"
        try:
            if args.action == "prepare" and not path.exists():
                made = prepare(args.folder, name, args.dataset, args.count, settings)
                print(f"{name}: {made} schedules ready", flush=True)
            if args.action == "measure" and "seconds" not in json.loads(path.read_text()):
                with Runner(patience=60.0) as runner:
                    print(f"{name}: {measure(path, runner)} schedules measured", flush=True)
        except (OSError, PerfkitError) as error:
            sys.stderr.write(f"{name}: {error}\n")


if __name__ == "__main__":
    main()
