"""``python -m bench.gpu.report FOLDER``: one file in ``bench/results/`` of what a GPU run left.

FOLDER holds ``steps.tsv`` (name, status, seconds of each step of ``bench/gpu.sh``) and one JSON
file per bench. The result is named after the GPU and says versions and commit.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from pathlib import Path

import torch

import perfkit

RESULTS = Path(__file__).resolve().parents[1] / "results"


def main(arguments: list[str]) -> int:
    folder, commit = Path(arguments[0]), arguments[1]
    steps = [line.split("\t") for line in (folder / "steps.tsv").read_text().splitlines()]
    gpu = torch.cuda.get_device_name()
    report = {
        "gpu": gpu,
        "driver_and_cuda": torch.version.cuda,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "perfkit": perfkit.__version__,
        "commit": commit,
        "steps": [{"name": n, "status": int(s), "seconds": int(t)} for n, s, t in steps],
        "benches": {
            file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))
        },
    }
    name = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    target = RESULTS / f"{name}.json"
    target.write_text(json.dumps(report, indent=1) + "\n")
    sys.stdout.write(f"wrote {target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
