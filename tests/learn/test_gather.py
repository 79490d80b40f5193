"""Variants, batches, the measuring child, and data sets that survive what happens to processes."""

from __future__ import annotations

import fcntl
import getpass
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from perfkit import config
from perfkit.analysis.dependences import Analysis
from perfkit.errors import DatasetError, MeasureError
from perfkit.ir.tree import show
from perfkit.learn import dataset, prepare
from perfkit.learn.batch import compile_batch, definitions, merge
from perfkit.learn.dataset import Entry, Row
from perfkit.learn.families import HELD_OUT
from perfkit.learn.gather import Gatherer, finish, in_workers
from perfkit.learn.measure import Job, Runner
from perfkit.learn.programs import Sample, programs
from perfkit.learn.runner import data, differs
from perfkit.learn.source import read
from perfkit.learn.variants import Variants
from perfkit.runtime.build import Toolchain
from perfkit.schedule import script
from perfkit.schedule.shape import Sizes
from perfkit.schedule.state import State

MATVEC = """\
def program(n, m, A: "float64[n, m]", x: "float64[m]", y: "float64[n]"):
    for i in range(n):
        for j in range(m):
            y[i] += A[i, j] * x[j]
"""
SAMPLE = Sample(0, 3, "matvec", MATVEC, (("n", 40), ("m", 64)), "strict")


def _variants(count: int = 12, seed: int = 1) -> Any:
    program = read(MATVEC)
    start = State.start(program.scop)
    analysis = Analysis(3_000_000, True)
    made = Variants(start, analysis, 32, Random(seed), lambda s: 1.0, Sizes())
    return start, made.draw(count)


def test_variants_are_distinct_legal_and_start_with_the_original() -> None:
    start, found = _variants()
    assert found[0].kind == "original" and not found[0].steps
    assert {v.kind for v in found} == {"original", "seed", "random", "neighbour"}
    texts = [show(v.state.tree) for v in found]
    assert len(set(texts)) == len(texts)
    for variant in found:
        replayed = script.replay(start, variant.script, Analysis(0, True))
        assert show(replayed.tree) == show(variant.state.tree)


def test_the_same_numbers_give_the_same_variants() -> None:
    assert [v.script for v in _variants()[1]] == [v.script for v in _variants()[1]]
    assert [v.script for v in _variants()[1]] != [v.script for v in _variants(seed=2)[1]]


def test_shared_definitions_stand_once() -> None:
    helper = "static inline int f(int a)\n{\n  return a;\n}"
    text = merge([f"#include <math.h>\n\n{helper}\n\nint v{k}(void)\n{{\n  return f({k});\n}}\n"
                  for k in range(3)])  # fmt: skip
    assert text.count("static inline int f") == 1
    assert [f"v{k}(void)" in text for k in range(3)] == [True] * 3
    guarded = "#if defined(X)\nint a;\nint b;\n#else\nint c;\n#endif\nint d;\n"
    assert list(definitions(guarded)) == [guarded.partition("\nint d")[0], "int d;"]


KERNEL = """\
#include <stdint.h>
#include <unistd.h>
int64_t v%d_call(void **args)
{
  int64_t n = *(int64_t *)args[0];
  double *A = args[1];
  for (int64_t i = 0; i < n; ++i)
    A[i] = A[i] * 0.5 + 1.0;
  %s
  return 0;
}
"""


def _job(bodies: list[str]) -> tuple[Job, Any]:
    settings = config.current()
    texts = [KERNEL % (k, body) for k, body in enumerate(bodies)]
    batch = compile_batch(texts, Toolchain.detect(settings), settings)
    assert batch.library is not None
    arrays = (("A", "float64", (500,), "inout"),)
    job = Job(batch.library, tuple(batch.compiled), (500,), arrays, (), (("array", "A"),))
    return job, batch


def test_what_becomes_of_each_variant() -> None:
    """A crash, a hang, a wrong result and a refusal cost only the variant that does it."""
    job, batch = _job(
        ["", "A[3] += 1e-3;", "*(volatile int *)0 = 1;", "usleep(9000);", "return 5;",
         "for (;;) usleep(1000);", ""]
    )  # fmt: skip
    with Runner(patience=1.0) as runner:
        found = runner.measure(job)
    words = [found[k].status for k in range(7)]
    assert words == ["ok", "wrong", "crashed", "slow", "failed", "hung", "ok"]
    assert len(found[0].seconds) == len(found[6].seconds) == 3
    assert min(found[3].seconds) >= 0.009 and not found[2].seconds
    assert not batch.failed


def test_an_original_that_crashes_is_reported() -> None:
    job, _ = _job(["*(volatile int *)0 = 1;", ""])
    with Runner() as runner, pytest.raises(MeasureError, match="original"):
        runner.measure(job)


def test_a_text_that_does_not_compile_is_left_out() -> None:
    settings = config.current()
    texts = [KERNEL % (0, ""), "int64_t broken(", KERNEL % (2, ""), "!refused"]
    batch = compile_batch(texts, Toolchain.detect(settings), settings)
    assert batch.compiled == [0, 2] and set(batch.failed) == {1, 3}


def test_results_are_compared_with_a_tolerance() -> None:
    a = np.linspace(1, 2, 50)
    assert not differs(a * (1 + 1e-12), a)
    assert differs(a + np.eye(1, 50, 7)[0] * 1e-3, a)
    nan = a.copy()
    nan[3] = np.nan
    assert differs(nan, a) and differs(a, nan) and not differs(nan.copy(), nan)


def test_square_matrices_are_well_conditioned() -> None:
    arrays = [["A", "float32", [30, 30], "in"], ["x", "float64", [9], "in"]]
    made = data({"seed": 1, "arrays": arrays})
    off = np.abs(made["A"]).sum(1) - np.diag(made["A"])
    assert made["A"].dtype == np.float32 and np.all(np.diag(made["A"]) > off * 0.6)
    assert 0.5 <= made["x"].min() <= made["x"].max() <= 1.5


# -- data sets ---------------------------------------------------------------------------------


def _entry(number: int, rows: int = 3) -> Entry:
    made = [
        Row("" if k == 0 else f"Tile(i={k + 1})\nÜ", "original" if k == 0 else "random",
            "ok", (1.0 + k, 2.0 + k))
        for k in range(rows)
    ]  # fmt: skip
    return Entry(replace(SAMPLE, number=number), tuple(made), "", "machine")


def test_a_shard_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    entries = [_entry(1), Entry(replace(SAMPLE, number=2), (), "too long", "machine")]
    dataset.write_shard(tmp_path, entries, {"machine": "m"})
    assert dataset.load(tmp_path) == entries
    assert dataset.statistics(entries)["timed schedules"] == 3


def test_compaction_keeps_everything_once(tmp_path: Path) -> None:
    entries = [_entry(k) for k in range(7)]
    for entry in entries:
        dataset.write_shard(tmp_path, [entry], {})
    before = dataset.fingerprint(dataset.load(tmp_path))
    dataset.compact(tmp_path, {}, programs=3)
    assert [p.name for p in dataset.shards(tmp_path)] == [
        "shard-000000-000002.npz", "shard-000003-000005.npz", "shard-000006-000006.npz"
    ]  # fmt: skip
    assert dataset.fingerprint(dataset.load(tmp_path)) == before
    dataset.write_shard(tmp_path, [entries[4]], {})  # as after a crash in between
    assert dataset.load(tmp_path) == entries


@pytest.mark.parametrize("damage", ["truncated", "foreign", "version", "empty"])
def test_damaged_shards_are_refused_with_one_message(tmp_path: Path, damage: str) -> None:
    dataset.write_shard(tmp_path, [_entry(1)], {})
    path = dataset.write_shard(tmp_path, [_entry(2)], {})
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "foreign":
        path.write_text("nothing of the kind")
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        with np.load(path) as file:
            columns = dict(file)
        text = json.dumps({"version": 99}).encode()
        columns["meta.bytes"] = np.frombuffer(text, np.uint8)
        columns["meta.ends"] = np.array([len(text)])
        np.savez(path, **columns)
    with pytest.raises(DatasetError, match="99" if damage == "version" else "truncated"):
        dataset.read_shard(path)
    with pytest.raises(DatasetError):
        dataset.load(tmp_path, strict=True)
    assert [e.sample.number for e in dataset.load(tmp_path)] == [1]


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="perfkit dataset build"):
        dataset.load(tmp_path)


def test_splits_belong_to_programs_and_hold_out_families() -> None:
    found = list(itertools.islice(programs(9), 300))
    splits = {dataset.split_of(s) for s in found}
    assert splits == {"train", "valid", "random", "families"}
    assert all((dataset.split_of(s) == "families") == (s.family in HELD_OUT) for s in found)


# -- the whole ---------------------------------------------------------------------------------


def _options(folder: Path) -> prepare.Options:
    return prepare.Options(folder, seed=0, variants=5)


def test_a_prepared_program_is_measured_after_another_process_made_it(tmp_path: Path) -> None:
    options = _options(tmp_path)
    made = prepare.prepare(SAMPLE, options, config.current())
    (place,) = prepare.pending(options)
    again = prepare.load(place)
    assert again == made and again.job is not None
    with Runner() as runner:
        once = finish(again, (runner,), "here")
        entry = finish(again, (runner, runner), "here")
    assert entry.rows[0].kind == "original" and entry.timed
    assert len(entry.rows[0].seconds) == 2 * len(once.rows[0].seconds) > 0
    # On a busy machine any other variant may look too slow, or too late to be worth waiting for.
    assert not {r.status for r in entry.rows} & {"wrong", "crashed", "failed"}


def test_a_broken_pending_program_is_passed_over(tmp_path: Path) -> None:
    options = _options(tmp_path)
    prepare.prepare(SAMPLE, options, config.current())
    bad = options.pending / "000001"
    bad.mkdir()
    (bad / "program.json").write_text("{")
    with pytest.raises(DatasetError, match="not a prepared program"):
        prepare.load(bad)
    gatherer = Gatherer(options, config.current(), lambda progress: None)
    gatherer.measure(time.monotonic() + 60)
    assert gatherer.progress.programs == 1 and not prepare.pending(options)
    assert len(dataset.load(tmp_path)) == 1


def test_waiting_for_the_machine_ends_with_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = _options(tmp_path / "data")
    prepare.prepare(SAMPLE, options, config.current())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gatherer = Gatherer(options, config.current(), lambda progress: None)
    with (tmp_path / f"perfkit-measure-{getpass.getuser()}.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        gatherer.measure(time.monotonic() + 0.2)
        assert not gatherer.progress.programs and prepare.pending(options)
    gatherer.measure(time.monotonic() + 60)
    assert gatherer.progress.programs == 1


@pytest.mark.slow
@pytest.mark.parametrize("after", [2.0, 6.0])
def test_a_killed_build_loses_nothing_that_was_measured(tmp_path: Path, after: float) -> None:
    command = [sys.executable, "-m", "perfkit.cli", "dataset", "build", "--hours", "1",
               "--variants", "3", "--out", str(tmp_path)]  # fmt: skip
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    time.sleep(after)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    if not dataset.shards(tmp_path) and not prepare.pending(_options(tmp_path)):
        return
    for path in dataset.shards(tmp_path):
        dataset.read_shard(path)
    for place in prepare.pending(_options(tmp_path)):
        prepare.load(place)


def stuck_at_two(sample: Sample) -> int:
    """A program whose preparation hangs in C code that takes no signals."""
    if sample.number == 2:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        time.sleep(60)
    return sample.number


def dies(sample: Sample) -> int:
    os._exit(1)


def test_workers_that_always_die_end_the_run() -> None:
    lost: list[int] = []
    with pytest.raises(DatasetError, match="in a row"):
        list(in_workers(programs(0), dies, time.monotonic() + 60, lambda s: lost.append(s.number)))
    assert 0 < len(lost) <= 4 * (os.cpu_count() or 1)


def test_a_program_that_hangs_is_left_out_and_the_others_go_on() -> None:
    samples = itertools.islice(programs(0), 8)
    lost: list[int] = []
    found = list(
        in_workers(samples, stuck_at_two, time.monotonic() + 60, lambda s: lost.append(s.number), 2)
    )
    assert 2 in lost and len(lost) <= (os.cpu_count() or 1)
    assert sorted([*found, *lost]) == list(range(8))
