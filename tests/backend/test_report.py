"""What explain prints of regions."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from perfkit.backend.report import GraphReport, RegionReport, Report


def test_equal_regions_are_told_once_with_their_number() -> None:
    norm = RegionReport("normalization", "add, rsqrt", False, "not clearly faster")
    scan = RegionReport("scan", "cumsum", True, "predicted faster", schedule="Parallelize(i)\n")
    text = str(Report([GraphReport(9, [norm, scan, norm], {"mm": 2})]))
    assert text.splitlines() == [
        "graph 0: 9 operators, 1 perfkit regions",
        "  - normalization: add, rsqrt",
        "      not clearly faster",
        "      2 of these",
        "  * scan: cumsum",
        "      predicted faster",
        "      Parallelize(i)",
        "  Inductor's: 2 x mm",
    ]
