"""Generated kernels in Triton's interpreter, against the oracle, with programs in any order.

The interpreter runs one program after the other, so it is blind to races: grids also run backwards
and shuffled. ``python -m tests.codegen.test_triton_interpret [NAME...]`` runs every program.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from bench.polybench.registry import EXTRA, POLYBENCH

pytest.importorskip("torch")
pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parents[2]
FEW = ("gemm", "syrk", "gramschmidt", "jacobi-1d", "lcs", "bit-mix", "trisolv")
"""A contraction, a triangle, row programs, a host loop, a wavefront, integers, one program."""
SMALL = (8, 4, 8, 4)
MATRIX = (32, 16, 16, 16)


def jobs(names: tuple[str, ...]) -> list[dict[str, Any]]:
    made = [
        {"program": n, "fp": fp, "blocks": SMALL, "orders": orders}
        for n in names
        for fp, orders in (("strict", ["forward", "random"]), ("reassociate", ["reversed"]))
    ]
    products = {"size": "MINI", "blocks": MATRIX, "fp": "reassociate", "orders": ["reversed"]}
    return [*made, *({**products, "program": n} for n in ("gemm", "syrk") if n in names)]


def results(work: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    path = folder / "jobs.json"
    path.write_text(json.dumps(work))
    done = subprocess.run(
        [sys.executable, "-m", "tests.codegen.triton_worker", str(path)],
        cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def verdict(result: dict[str, Any]) -> str:
    """"" when every order of programs agrees with the oracle."""
    if "problem" in result:
        return str(result["problem"])
    wrong = {n: e for n, e in result["errors"].items() if not e <= result["tolerance"]}
    return f"relative errors {wrong}" if wrong else ""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return results(jobs(FEW), tmp_path_factory.mktemp("triton"))


@pytest.mark.parametrize("name", FEW)
def test_kernels_agree_with_the_oracle(name: str, done: list[dict[str, Any]]) -> None:
    own = [r for r in done if r["program"] == name]
    assert len(own) == len(jobs((name,)))
    assert not [verdict(r) for r in own if verdict(r)]


def main(names: tuple[str, ...]) -> int:
    """Every program, or those named; one line each."""
    with tempfile.TemporaryDirectory() as folder:
        found = results(jobs(names or tuple(POLYBENCH + EXTRA)), Path(folder))
    for r in found:
        sys.stdout.write(f"{r['program']} {r['fp']}: {verdict(r) or 'agrees'}\n")
    return int(any(verdict(r) for r in found))


if __name__ == "__main__":
    raise SystemExit(main(tuple(sys.argv[1:])))
