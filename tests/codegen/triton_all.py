"""Every program as Triton kernels in the interpreter against the oracle; takes about half an hour.

``python -m tests.codegen.triton_all [--quick] [--json FILE] [NAME...]``: each program is mapped
with small blocks and as ``target="triton"`` maps it for LARGE sizes, with strict and reassociated
sums, and run at small sizes with the programs of every grid forwards, backwards and shuffled
(``--quick``: small blocks strict, and the default mapping reassociated). One line per run; the exit
status is 0 when all agree.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.polybench.registry import EXTRA, POLYBENCH

ROOT = Path(__file__).resolve().parents[2]
SMALL = (8, 4, 8, 4)
MATRIX = (32, 16, 16, 16)


def jobs(names: Sequence[str]) -> list[dict[str, Any]]:
    """What the worker is to run: a program, how it is mapped, and orders of its grids."""
    made: list[dict[str, Any]] = []
    for n in names:
        small = {"program": n, "blocks": SMALL}
        made.append({**small, "fp": "strict", "orders": ["forward", "random"]})
        made.append({**small, "fp": "reassociate", "orders": ["reversed"]})
        if n in ("gemm", "syrk"):
            products = {"program": n, "blocks": MATRIX, "size": "MINI", "fp": "reassociate"}
            made.append({**products, "orders": ["reversed"]})
    return made


def chosen_jobs(names: Sequence[str]) -> list[dict[str, Any]]:
    """The same as users get them: mapped for large sizes by the cost model."""
    return [
        {"program": n, "for": "LARGE", "fp": fp, "orders": orders}
        for n in names
        for fp, orders in (("strict", ["random"]), ("reassociate", ["forward", "reversed"]))
    ]


def stream(work: list[dict[str, Any]], folder: Path) -> Iterator[dict[str, Any]]:
    """Results as they come, from a process in which kernels are interpreted."""
    path = folder / "jobs.json"
    path.write_text(json.dumps(work))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.codegen.triton_worker", str(path)], cwd=ROOT, text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"}, stdout=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        yield from map(json.loads, child.stdout)
    assert child.returncode == 0, f"the worker ended with status {child.returncode}"


def results(work: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    return list(stream(work, folder))


def verdict(result: dict[str, Any]) -> str:
    """"" when every order of programs agrees with the oracle."""
    if "problem" in result:
        return str(result["problem"])
    wrong = {n: e for n, e in result["errors"].items() if not e <= result["tolerance"]}
    return f"relative errors {wrong}" if wrong else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="two runs of each program, not four")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every result here")
    args = parser.parse_args()
    unknown = sorted(set(args.names) - {*POLYBENCH, *EXTRA})
    if unknown:
        sys.stderr.write(f"no such program: {', '.join(unknown)}\n")
        return 2
    names = args.names or [*POLYBENCH, *EXTRA]
    work = [job for n in names for job in (*jobs([n]), *chosen_jobs([n]))]
    if args.quick:
        work = [j for j in work if ("for" in j) == (j["fp"] == "reassociate")]
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for r in stream(work, Path(folder)):
            found.append(r)
            how = r.get("mapping", "")
            sys.stdout.write(f"{r['program']} {r['fp']} {how}: {verdict(r) or 'agrees'}\n")
            sys.stdout.flush()
    bad = sorted({r["program"] for r in found if verdict(r)})
    sys.stdout.write(f"{len(names) - len(bad)} of {len(names)} programs agree, {len(found)} runs\n")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(bool(bad))


if __name__ == "__main__":
    raise SystemExit(main())
