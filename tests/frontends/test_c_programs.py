"""The C programs of the benchmarks all become SCoPs."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfkit.frontends.c import parse_file

ROOT = Path(__file__).resolve().parents[2] / "bench"
FILES = sorted(ROOT.glob("polybench/c/*.c")) + sorted(ROOT.glob("extra/c/*.c"))


@pytest.mark.parametrize("path", FILES, ids=[p.stem for p in FILES])
def test_parses(path: Path) -> None:
    regions = parse_file(path).regions
    assert regions
    for region in regions:
        assert region.error is None
