"""The AVX-512 kernels' template, checked on processors without AVX-512."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.protocol import native

SOURCES = tuple(
    f"cpu/{name}.cpp" for name in ("attention", "attention_portable", "attention_avx512", "probe")
)


@pytest.mark.skipif(native.compiler() is None, reason="no C++ compiler")
def test_sixteen_lanes_give_what_four_do(tmp_path: Path) -> None:
    program = native.build(tmp_path, "lanes.cpp", "-O2", "-Wno-psabi", extra=SOURCES)
    done = subprocess.run([program, "40", "1"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "40 trials" in done.stdout, done.stdout
