"""Stored schedules: found again, shared by processes, carried as lines, refused in one message."""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import perfkit
from perfkit import config
from perfkit.cli import main
from perfkit.errors import StoreError
from perfkit.runtime.build import Toolchain
from perfkit.runtime.machine import Machine
from perfkit.search.store import Key, Store, Stored
from tests.programs_ir import MATMUL, parse_scop

SCOP = parse_scop(MATMUL)
FOUND = Stored("block", "Tile(i=32)\n", 4, 0.25, [{"name": "block"}])


@pytest.fixture
def settings(tmp_path: Path) -> config.Settings:
    return replace(config.current(), cache_dir=tmp_path)


def key_of(settings: config.Settings, **changes: object) -> Key:
    key = Key.of(
        SCOP, {"n": 1000}, Machine.detect(), Toolchain.detect(settings), settings, "strict", "x"
    )
    return replace(key, **changes)  # type: ignore[arg-type]


def test_more_effort_answers_for_less_but_not_the_other_way(settings: config.Settings) -> None:
    store, key = Store(settings), key_of(settings)
    store.put(key, FOUND)
    store.put(key, replace(FOUND, effort=0, seed="guess"))
    assert store.get(key) == FOUND
    assert store.get(key, 4) == FOUND
    assert store.get(key, 5) is None


@pytest.mark.parametrize("field", ["program", "machine", "perfkit"])
def test_everything_that_matters_is_in_the_key(settings: config.Settings, field: str) -> None:
    store = Store(settings)
    store.put(key_of(settings), FOUND)
    assert store.get(key_of(settings, **{field: "other"})) is None


def test_sizes_count_by_their_power_of_two_and_settings_count(settings: config.Settings) -> None:
    def key(n: int, **changes: object) -> Key:
        changed = replace(settings, **changes)  # type: ignore[arg-type]
        machine, tools = Machine.detect(), Toolchain.detect(settings)
        return Key.of(SCOP, {"n": n}, machine, tools, changed, "strict", "x")

    assert key(1000) == key(1023)
    assert key(1000) != key(1025)
    assert key(1000) != key(1000, threads=settings.threads + 1)
    assert key(1000) != key(1000, search="looper")


def test_searching_happens_once(settings: config.Settings) -> None:
    key = key_of(settings)
    assert Store(settings).obtain(key, 4, lambda: FOUND) == FOUND

    def again() -> Stored:
        raise AssertionError("searched twice")

    assert Store(settings).obtain(key, 4, again) == FOUND


def test_one_of_several_processes_searches(settings: config.Settings, tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from perfkit import config\n"
        "from perfkit.search.store import Key, Store, Stored\n"
        "settings = replace(config.current(), cache_dir=Path(sys.argv[1]))\n"
        "def find():\n"
        "    print('searched')\n"
        "    time.sleep(0.5)\n"
        "    return Stored('s', 'script', 1)\n"
        "Store(settings).obtain(Key('p', (), 'm', (), 'h'), 1, find)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    ranks = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [p.communicate(timeout=120)[0] for p in ranks]
    assert [p.returncode for p in ranks] == [0] * 4
    assert sum("searched" in text for text in said) == 1


def test_another_version_is_refused_in_one_message_and_left_alone(
    settings: config.Settings, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(settings)
    with sqlite3.connect(store.path) as db:
        db.execute("PRAGMA user_version = 99")
    before = store.path.read_bytes()
    with caplog.at_level(logging.WARNING):
        assert store.obtain(key_of(settings), 0, lambda: FOUND) == FOUND
        assert store.get(key_of(settings)) is None
    assert len([r for r in caplog.records if "format 99" in r.getMessage()]) == 1
    assert store.path.read_bytes() == before


@pytest.mark.parametrize("damage", [b"not a database at all" * 100, b"SQLite format 3\0" + b"x"])
def test_a_damaged_store_costs_a_message_only(
    settings: config.Settings, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(settings)
    store.path.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        assert store.obtain(key_of(settings), 0, lambda: FOUND) == FOUND
    assert "not used" in caplog.text
    store.clear()
    store.put(key_of(settings), FOUND)
    assert store.get(key_of(settings)) == FOUND


def test_lines_go_out_and_come_in(settings: config.Settings, tmp_path: Path) -> None:
    store, key = Store(settings), key_of(settings)
    store.put(key, FOUND)
    lines = list(store.export())
    other = Store(settings, tmp_path / "other")
    assert other.load(lines) == 1
    assert other.get(key) == FOUND


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"format": 99}', '{"format": 1, "key": {}}'])
def test_lines_that_are_none_are_named(settings: config.Settings, line: str) -> None:
    with pytest.raises(StoreError, match="line 1"):
        Store(settings).load([line])


def test_the_command(
    settings: config.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("PERFKIT_CACHE_DIR", str(tmp_path))
    Store(settings).put(key_of(settings), FOUND)
    file = tmp_path / "lines.jsonl"
    assert main(["store", "export", str(file)]) == 0
    assert json.loads(file.read_text())["seed"] == "block"
    assert main(["store", "clear"]) == 0
    assert main(["store", "import", str(file)]) == 0
    assert main(["store", "ls"]) == 0
    assert "block" in capsys.readouterr().out
    assert main(["store", "import", str(tmp_path / "none")]) == 1


def scale(A: np.ndarray, f: float) -> None:
    n, m = A.shape
    for i in range(n):
        for j in range(m):
            A[i, j] = f * A[i, j]


def test_a_second_call_searches_nothing(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    A = np.ones((64, 64))
    with config.scope(cache_dir=settings.cache_dir, search_seconds=0.3):
        first = perfkit.optimize(scale, A, 2.0, measure=2)

        def search(*_: object) -> None:
            raise AssertionError("searched again")

        monkeypatch.setattr("perfkit.search.decide.candidates", search)
        again = perfkit.optimize(scale, A, 2.0, measure=2)
        assert again.schedule == first.schedule
        assert again.explain() == first.explain()
        assert perfkit.optimize(scale, A, 2.0).schedule == first.schedule  # less effort
        with pytest.raises(AssertionError), config.scope(reuse=False):
            perfkit.optimize(scale, A, 2.0)
