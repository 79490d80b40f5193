"""Attention fused with the switch (csrc/cuda/switch.h) on the emulator, virtual ranks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.csrc.native import CSRC, build, compiler, run

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")

HEAP = CSRC / "cpu" / "heap.cpp"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("switch") / "switch"
    return build("switch_emulated.cpp", target, "-O1", "-DDIM=32", str(HEAP))


def test_push_and_pull(program: Path) -> None:
    done = run(program, 10, 0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == 10


def test_a_missing_rank_ends_every_wait(program: Path) -> None:
    done = run(program, "killed", 0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed" in done.stdout


PLANTS = {
    "who owns a row": ("index >= begins[next]", "index > begins[next]"),
    "the counters": ("M::clear(mine.counters + counter);", ""),
    "the slot of the epoch": ("epoch = turn.endpoint.epoch(), slot", "epoch = 7, slot"),
    "the acknowledgement": ("turn.endpoint.acknowledge(rank, epoch);", "(void)rank;"),
    "the end of a rank's rows": ("turn.s.rows[rank + 1]};", "turn.s.all_rows()};"),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_planted_faults_are_found(plant: str, tmp_path: Path) -> None:
    right, wrong = PLANTS[plant]
    shutil.copytree(CSRC / "cuda", tmp_path / "cuda")
    header = tmp_path / "cuda" / "switch.h"
    text = header.read_text()
    assert right in text
    header.write_text(text.replace(right, wrong))
    program = build("switch_emulated.cpp", tmp_path / "planted", "-O1", "-DDIM=32",
                    "-Wno-unused-but-set-variable", "-Wno-unused-variable",
                    str(HEAP), include=tmp_path)  # fmt: skip
    done = run(program, 10, 7)
    assert done.returncode == 1, done.stdout
