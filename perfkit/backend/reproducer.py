"""A script that shows again what went wrong with a region, beside the backend's records.

The script holds the region as text and its tensors' layouts, no values: running it lowers,
compiles and checks the region on random inputs, as the backend did.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from perfkit.backend import program
from perfkit.backend.check import check
from perfkit.backend.program import Spec
from perfkit.frontends import fx_graph

FOLDER = "failed"
LISTS = ("inputs", "nodes")

_TEXT = '''"""A region of a torch graph that perfkit left to Inductor. Run this file to see why:

{why}
"""

from perfkit.backend.reproducer import run

GRAPH = """
{graph}
"""

if __name__ == "__main__":
    print(run(GRAPH, fp={fp!r}, schedule={schedule!r}, threads={threads}))
'''


def write(spec: Spec, error: Exception, root: Path) -> Path | None:
    """Write the script below ``root``; None where that cannot be written."""
    why = "\n".join(f"    {line}" for line in str(error).splitlines())
    fields = {"why": _plain(why), "graph": _plain(_lines(spec.graph)), "fp": spec.fp,
              "schedule": spec.schedule, "threads": spec.threads}  # fmt: skip
    text = _TEXT.format(**fields)
    folder = root / FOLDER
    path = folder / f"region_{hashlib.sha256(text.encode()).hexdigest()[:12]}.py"
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(name, path)
        return path
    return None


def _lines(graph: str) -> str:
    """The text of a region with one tensor or operator a line."""
    record = json.loads(graph)
    parts = [
        f"{json.dumps(key)}: "
        + ("[\n  " + ",\n  ".join(map(json.dumps, value)) + "]" if key in LISTS
           else json.dumps(value))
        for key, value in record.items()
    ]  # fmt: skip
    return "{" + ",\n ".join(parts) + "}"


def _plain(text: str) -> str:
    """For a string between three quotes."""
    return text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')


def run(graph: str, *, fp: str, schedule: str, threads: int) -> str:
    """Lower, compile and check a region; tells how its loops are scheduled when all is well.

    Raises:
        PerfkitError: what the backend met.
    """
    spec = Spec(graph.strip(), fp, schedule, threads)
    read = fx_graph.loads(spec.graph)
    made = program.load(spec.pack())
    check(read, made, [read.hints[s] for s in read.sizes])
    return f"the region compiles and agrees with torch; its schedule:\n{made.schedule}"


__all__ = ["run", "write"]
