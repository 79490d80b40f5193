"""Generated kernels in Triton's interpreter, against the oracle, with programs in any order.

The interpreter runs one program after the other, so it is blind to races: grids also run backwards
and shuffled. ``python -m tests.codegen.triton_all`` does the same for every program.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.codegen.triton_all import jobs, results, verdict

pytest.importorskip("torch")
pytest.importorskip("triton")
FEW = ("gemm", "syrk", "gramschmidt", "jacobi-1d", "lcs", "bit-mix", "trisolv", "integral-image")
"""A contraction, a triangle, row programs, a host loop, waves, integers, one program, scans."""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return results(jobs(FEW), tmp_path_factory.mktemp("triton"))


@pytest.mark.parametrize("name", FEW)
def test_kernels_agree_with_the_oracle(name: str, done: list[dict[str, Any]]) -> None:
    own = [r for r in done if r["program"] == name]
    assert len(own) == len(jobs((name,)))
    assert not [verdict(r) for r in own if verdict(r)]
