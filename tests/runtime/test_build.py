from __future__ import annotations

import ctypes
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from perfkit import config
from perfkit.errors import CompileError, CompilerNotFound
from perfkit.runtime.build import Toolchain, compile_c


def script(path: Path, body: str) -> str:
    """A stand-in for a compiler."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_compiles_to_a_loadable_library(settings: config.Settings, toolchain: Toolchain) -> None:
    path = compile_c("int answer(void) { return 42; }", toolchain=toolchain, settings=settings)
    assert ctypes.CDLL(str(path)).answer() == 42
    assert path.with_name("kernel.c").read_text().startswith("int answer")
    assert path.parent.parent == settings.cache_dir / "build"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_extra_flags_reach_the_compiler(settings: config.Settings, toolchain: Toolchain) -> None:
    path = compile_c(
        "int answer(void) { return N; }",
        toolchain=toolchain,
        settings=settings,
        extra_flags=["-DN=7"],
    )
    assert ctypes.CDLL(str(path)).answer() == 7
    assert "-DN=7" in toolchain.key_flags(["-DN=7"])


def test_openmp_pragmas_work(settings: config.Settings, toolchain: Toolchain) -> None:
    if not toolchain.openmp_flag:
        pytest.skip("this compiler has no OpenMP library")
    source = """
    int total(void) { int n = 0;
    #pragma omp parallel for reduction(+ : n)
    for (int i = 0; i < 100; i++) n += i;
    return n; }"""
    path = compile_c(source, toolchain=toolchain, settings=settings)
    assert ctypes.CDLL(str(path)).total() == 4950


def test_compiler_error_shows_lines_and_keeps_the_source(
    settings: config.Settings, toolchain: Toolchain
) -> None:
    with pytest.raises(CompileError) as caught:
        compile_c("int f(void) { return missing; }", toolchain=toolchain, settings=settings)
    message = str(caught.value)
    assert "missing" in message
    kept = next(word for word in message.split() if word.endswith("kernel.c"))
    assert Path(kept).read_text() == "int f(void) { return missing; }"


def test_a_hanging_compiler_is_stopped(settings: config.Settings, tmp_path: Path) -> None:
    path = script(tmp_path / "slowcc", 'case "$1" in -*version|-d*|-print*) ;; *) sleep 60;; esac')
    chosen = replace(settings, compile_timeout=0.2)
    slow = Toolchain(path, "slow", (), "")
    with pytest.raises(CompileError, match="PERFKIT_COMPILE_TIMEOUT"):
        compile_c("int x;", toolchain=replace(slow, flags=("-c",)), settings=chosen)


def test_a_full_disk_leads_elsewhere(settings: config.Settings, tmp_path: Path) -> None:
    body = (
        f'case "$PWD" in {settings.cache_dir}/*) echo "x: No space left on device" >&2; exit 1;; '
        'esac; while [ "$1" != -o ]; do shift; done; : > "$2"'
    )
    path = script(tmp_path / "fullcc", body)
    built = compile_c("int x;", toolchain=Toolchain(path, "full", (), ""), settings=settings)
    assert built.exists()
    assert settings.cache_dir not in built.parents


def test_detect_prefers_the_named_compiler(settings: config.Settings, tmp_path: Path) -> None:
    path = script(tmp_path / "mycc", 'echo "mycc 1.0"')
    found = Toolchain.detect(replace(settings, cc=path, cflags="-O2 '-DX=a b'"))
    assert found.path == path
    assert found.version.startswith("mycc 1.0")
    assert found.flags == ("-O2", "-DX=a b")
    assert found.openmp_flag == ""


def test_detect_without_any_compiler(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompilerNotFound, match="apt install gcc"):
        Toolchain.detect(settings)
    with pytest.raises(CompilerNotFound, match="PERFKIT_CC=nocc"):
        Toolchain.detect(replace(settings, cc="nocc"))


def test_a_compiler_that_went_away(settings: config.Settings) -> None:
    gone = Toolchain("/nonexistent/gcc", "gone", (), "")
    with pytest.raises(CompilerNotFound, match="is gone"):
        compile_c("int x;", toolchain=gone, settings=settings)
    assert not list((settings.cache_dir / "build").iterdir())
