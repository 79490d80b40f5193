from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from perfkit import config
from perfkit.errors import CacheError, CompileError
from perfkit.runtime import store
from perfkit.runtime.build import Toolchain
from perfkit.runtime.machine import Machine
from perfkit.runtime.store import CacheKey, KernelCache, source_hash

KEY = CacheKey("int x;", ("-O3",), "gcc 12", "x86_64; avx2", "hash")


class Builder:
    """Makes a "library" in a folder of its own, and counts how often."""

    def __init__(self, folder: Path, content: bytes = b"library") -> None:
        self.folder, self.content, self.calls = folder, content, 0

    def __call__(self) -> Path:
        self.calls += 1
        place = self.folder / f"built-{self.calls}"
        place.mkdir(parents=True)
        path = place / "kernel.so"
        path.write_bytes(self.content)
        return path


@pytest.fixture
def build(tmp_path: Path) -> Builder:
    return Builder(tmp_path / "builds")


@pytest.fixture
def cache(settings: config.Settings) -> KernelCache:
    return KernelCache(settings)


def test_a_miss_builds_and_a_hit_does_not(cache: KernelCache, build: Builder) -> None:
    first = cache.obtain(KEY, build, {"name": "gemm"})
    again = KernelCache(cache.settings).obtain(KEY, build)
    assert build.calls == 1
    assert first.so_path == again.so_path
    assert again.so_path.read_bytes() == b"library"
    assert again.source_path.read_text() == "int x;"
    assert again.metadata == {"name": "gemm"}
    assert not list(build.folder.iterdir())


@pytest.mark.parametrize("field", ["source", "toolchain", "machine", "perfkit", "flags"])
def test_every_field_of_the_key_counts(field: str) -> None:
    value = ("-O2",) if field == "flags" else "other"
    assert replace(KEY, **{field: value}).digest() != KEY.digest()
    assert replace(KEY).digest() == KEY.digest()


def test_flag_boundaries_count() -> None:
    assert replace(KEY, flags=("-a", "b")).digest() != replace(KEY, flags=("-a b",)).digest()


def test_source_hash_is_stable() -> None:
    assert source_hash() == source_hash()
    assert len(source_hash()) == 64


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3])


def tamper(path: Path) -> None:
    path.write_bytes(b"evil code")


@pytest.mark.parametrize("damage", [truncate, tamper, Path.unlink])
@pytest.mark.parametrize("name", [store.SOURCE, store.LIBRARY, store.META])
def test_a_damaged_entry_is_built_again(
    cache: KernelCache, build: Builder, name: str, damage: Callable[[Path], None]
) -> None:
    entry = cache.obtain(KEY, build)
    damage(entry.so_path.with_name(name))
    assert cache.ls() == []
    again = cache.obtain(KEY, build)
    assert build.calls == 2
    assert again.so_path.read_bytes() == b"library"
    assert len(cache.ls()) == 1


def test_an_entry_moved_to_another_key_is_refused(cache: KernelCache, build: Builder) -> None:
    entry = cache.obtain(KEY, build)
    other = replace(KEY, source="int y;")
    target = cache._folder(other.digest())
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(entry.so_path.parent, target)
    assert cache.obtain(other, build).source_path.read_text() == "int y;"


def test_a_failed_build_leaves_nothing(cache: KernelCache, build: Builder) -> None:
    def fail() -> Path:
        raise CompileError("no")

    with pytest.raises(CompileError):
        cache.obtain(KEY, fail)
    assert cache.ls() == []
    assert cache.obtain(KEY, build).so_path.exists()


def test_an_unwritable_cache_falls_back_with_one_warning(
    settings: config.Settings, tmp_path: Path, build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "open-to-all"
    blocked.mkdir()
    blocked.chmod(0o777)  # anyone could put code there
    cache = KernelCache(replace(settings, cache_dir=blocked))
    cache.obtain(KEY, build)
    entry = cache.obtain(replace(KEY, source="int y;"), build)
    assert entry.so_path.read_bytes() == b"library"
    assert blocked not in entry.so_path.parents
    assert [r.name for r in caplog.records] == ["perfkit.cache"]
    assert "PERFKIT_CACHE_DIR" in caplog.text


def test_a_full_disk_falls_back(
    cache: KernelCache, build: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, original = store.shutil.copyfile, cache.root

    def full(source: Path, target: Path) -> None:
        if original in Path(target).parents:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(store.shutil, "copyfile", full)
    entry = cache.obtain(KEY, build)
    assert entry.so_path.read_bytes() == b"library"
    assert cache.root != original


def test_no_place_at_all_is_an_error(
    cache: KernelCache, build: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.shutil, "copyfile", full)
    with pytest.raises(CacheError, match="PERFKIT_CACHE_DIR"):
        cache.obtain(KEY, build)


def test_least_recently_used_goes_first(
    settings: config.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "GRACE_SECONDS", 0.0)
    build = Builder(tmp_path / "builds", b"x" * 10_000)
    cache = KernelCache(replace(settings, cache_bytes=25_000))
    keys = [replace(KEY, source=f"int x{i};") for i in range(3)]
    for age, key in zip((50, 100), keys[:2], strict=True):
        entry = cache.obtain(key, build)
        past = time.time() - age
        os.utime(entry.so_path.with_name(store.META), (past, past))
    cache.obtain(keys[2], build)
    left = {entry.digest for entry in cache.ls()}
    assert left == {keys[0].digest(), keys[2].digest()}


def test_a_recent_entry_is_never_evicted(settings: config.Settings, build: Builder) -> None:
    cache = KernelCache(replace(settings, cache_bytes=1))
    for i in range(3):
        cache.obtain(replace(KEY, source=f"int x{i};"), build)
    assert len(cache.ls()) == 3


def test_ls_and_clear(cache: KernelCache, build: Builder) -> None:
    assert (cache.ls(), cache.clear()) == ([], 0)
    cache.obtain(KEY, build)
    cache.obtain(replace(KEY, source="int y;"), build)
    assert len(cache.ls()) == 2
    assert cache.clear() == 2
    assert cache.ls() == []
    cache.obtain(KEY, build)
    assert build.calls == 3


WORKER = """
import sys, time
from pathlib import Path
from perfkit import config
from perfkit.runtime.store import CacheKey, KernelCache
root, builds = map(Path, sys.argv[1:])
with config.scope(cache_dir=root) as settings:
    cache = KernelCache(settings)
    for i in range(6):
        def build():
            place = builds / f"{time.time_ns()}-{id(cache)}"
            place.mkdir(parents=True)
            (builds / f"log-{i}").open("a").write("built\\n")
            time.sleep(0.01)
            (place / "kernel.so").write_bytes(b"%d" % i)
            return place / "kernel.so"
        key = CacheKey(f"int x{i};", (), "", "", "")
        assert cache.obtain(key, build).so_path.read_bytes() == b"%d" % i
"""


def test_concurrent_processes_build_each_entry_once(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", WORKER, str(tmp_path / "c"), str(tmp_path / "b")]
    workers = [subprocess.Popen(arguments) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    logs = sorted((tmp_path / "b").glob("log-*"))
    assert [path.read_text() for path in logs] == ["built\n"] * 6


def test_metadata_is_json(cache: KernelCache, build: Builder) -> None:
    entry = cache.obtain(KEY, build, {"schedule": "Tile(i, 32)"})
    record = json.loads(entry.so_path.with_name(store.META).read_text())
    assert record["metadata"] == {"schedule": "Tile(i, 32)"}


def test_compiling_through_the_cache(cache: KernelCache, toolchain: Toolchain) -> None:
    def compiled(*flags: str) -> store.Entry:
        return store.compile_cached(
            "int answer(void) { return N; }",
            cache=cache,
            toolchain=toolchain,
            machine=Machine.detect(),
            extra_flags=flags,
            metadata={"name": "answer"},
        )

    first, other = compiled("-DN=1"), compiled("-DN=2")
    assert ctypes.CDLL(str(first.so_path)).answer() == 1
    assert ctypes.CDLL(str(other.so_path)).answer() == 2
    assert compiled("-DN=1").so_path == first.so_path
    with pytest.raises(CompileError, match="error: .*N"):
        compiled()
    assert len(cache.ls()) == 2
