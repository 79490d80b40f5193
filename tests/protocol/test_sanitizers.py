"""Ranks as threads under ThreadSanitizer, AddressSanitizer and UBSan."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.protocol import native

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="no C++ compiler")


RANKS = ("cpu/heap.cpp",)
FUSED = (*RANKS, *(f"cpu/{n}.cpp" for n in (
    "switch_attention", "attention", "attention_portable", "probe"
)))  # fmt: skip


def build(
    folder: Path, sanitizers: str, source: str = "ranks.cpp", extra: tuple[str, ...] = RANKS
) -> Path:
    flags = ["-O1", "-g", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    try:
        return native.build(folder, source, *flags, extra=extra)
    except AssertionError as error:
        if "cannot find" in str(error):  # the compiler comes without the sanitizer's library
            pytest.skip(f"no library for -fsanitize={sanitizers}")
        raise


def run(program: Path, *arguments: str | int) -> subprocess.CompletedProcess[str]:
    # ThreadSanitizer of older compilers refuses address spaces with many random bits.
    fixed = [found, "-R"] if (found := shutil.which("setarch")) else []
    command = [*fixed, str(program), *map(str, arguments), "1"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def threads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = build(tmp_path_factory.mktemp("tsan"), "thread")
    probe = run(program, "push", 0)
    if probe.returncode != 0:
        pytest.skip(f"ThreadSanitizer does not start here: {probe.stderr[:200]}")
    return program


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("asan"), "address,undefined")


@pytest.mark.parametrize("mode", ["push", "pull", "killed"])
def test_no_data_race(threads: Path, mode: str) -> None:
    done = run(threads, mode, 30)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "30 trials" in done.stdout and not done.stderr


@pytest.mark.parametrize("mode", ["push", "pull", "killed"])
def test_no_bad_access(addresses: Path, mode: str) -> None:
    done = run(addresses, mode, 60)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "60 trials" in done.stdout and not done.stderr


def test_the_sanitizer_sees_a_missing_acquire(threads: Path) -> None:
    done = run(threads, "relaxed", 5)
    assert done.returncode != 0 or "data race" in done.stderr
    assert "data race" in done.stderr


@pytest.mark.parametrize("sanitizers", ["thread", "address,undefined"])
def test_fused_attention(tmp_path: Path, sanitizers: str) -> None:
    program = build(tmp_path, sanitizers, "fused.cpp", FUSED)
    done = run(program, 0)
    if done.returncode != 0:
        pytest.skip(f"the sanitizer does not start here: {done.stderr[:200]}")
    done = run(program, 60)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "60 trials" in done.stdout and not done.stderr
