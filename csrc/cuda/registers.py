"""``python3 csrc/cuda/registers.py``: compiles every kernel for sm_90a and checks what it uses.

Fails on any spill or stack frame, on more registers than ``budget.txt`` grants a kernel, and on a
kernel that has no line there. ``--update`` adds lines and rewrites those of the kernels compiled;
registers are handed out by eights, so that is how they are granted. Needs nvcc only, no GPU.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUDGET = HERE / "budget.txt"
FLAGS = ("-std=c++17", "-O3", "-gencode=arch=compute_90a,code=sm_90a", "-Xptxas=-v", "-cubin")
HEADER = "# kernel, its template arguments, and the registers it may use; see registers.py\n"

_ENTRY = re.compile(r"Compiling entry function '(\w+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
# Itanium mangling: <length><name>, Li<number>E, Lb<0 or 1>E.
_NAME = re.compile(r"\d+([a-z_]+_kernel)I")
_ARGUMENT = re.compile(r"\d(Bf16|Fp16)|Li(\d+)E|Lb([01])E")


@dataclass(frozen=True)
class Kernel:
    """``name`` is unique; registers a thread; bytes of stack and spills a thread."""

    name: str
    registers: int
    spilled: int


def short_name(mangled: str) -> str:
    """``..14forward_kernelI..4Bf16ELi72ELb0E..`` -> ``forward_kernel Bf16 72 0``."""
    found = _NAME.search(mangled)
    if found is None:
        return mangled
    arguments = ["".join(groups) for groups in _ARGUMENT.findall(mangled, found.end())]
    return " ".join([found[1], *arguments])


def read_log(text: str) -> Iterator[Kernel]:
    """The kernels of what ``ptxas -v`` printed."""
    name, spilled = "", 0
    for line in text.splitlines():
        if entry := _ENTRY.search(line):
            name, spilled = short_name(entry[1]), 0
        elif stack := _STACK.search(line):
            spilled = sum(map(int, stack.groups()))
        elif (used := _USED.search(line)) and name:
            yield Kernel(name, int(used[1]), spilled)
            name = ""


def compile_one(nvcc: str, source: Path, include: Path) -> list[Kernel]:
    """Raises RuntimeError with the compiler's messages."""
    command = [nvcc, *FLAGS, f"-I{include}", str(source), "-o", os.devnull]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{source.name}:\n{done.stdout}{done.stderr}")
    return list(read_log(done.stdout + done.stderr))


def read_budget(path: Path = BUDGET) -> dict[str, int]:
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: int(registers) for name, registers in pairs}


def grant(registers: int) -> int:
    return min((registers + 7) // 8 * 8, 255)


def violations(kernels: Sequence[Kernel], budget: dict[str, int]) -> list[str]:
    found = []
    for kernel in kernels:
        if kernel.spilled:
            found.append(f"{kernel.name}: {kernel.spilled} bytes of stack and spills")
        if kernel.name not in budget:
            found.append(f"{kernel.name}: not in {BUDGET.name}; add it with --update")
        elif kernel.registers > budget[kernel.name]:
            found.append(
                f"{kernel.name}: {kernel.registers} registers, the budget is {budget[kernel.name]}"
            )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="*", type=Path, help="default: all of csrc/cuda")
    parser.add_argument("--nvcc", default=os.environ.get("CUDACXX") or shutil.which("nvcc"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--list", action="store_true", help="every kernel, not only problems")
    parser.add_argument("--update", action="store_true", help="write budget.txt")
    given = parser.parse_args(arguments)
    if given.nvcc is None:
        parser.error("no nvcc: put it on PATH or name it with --nvcc or CUDACXX")
    sources = given.sources or sorted(HERE.rglob("*.cu"))
    kernels: list[Kernel] = []
    with ThreadPoolExecutor(given.jobs) as pool:
        for found in pool.map(lambda s: compile_one(given.nvcc, s, HERE.parent), sources):
            kernels += found
    for kernel in sorted(kernels, key=lambda kernel: kernel.name) if given.list else []:
        sys.stdout.write(f"{kernel.name:36} {kernel.registers:3} registers\n")
    if given.update:
        known = read_budget() | {k.name: grant(k.registers) for k in kernels}
        BUDGET.write_text(HEADER + "".join(f"{n} {r}\n" for n, r in sorted(known.items())))
    problems = violations(kernels, read_budget())
    for problem in problems:
        sys.stderr.write(problem + "\n")
    sys.stdout.write(f"{len(kernels)} kernels of {len(sources)} files, {len(problems)} problems\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
