"""Every program as Triton kernels, compiled for sm_90 without a GPU: what the kernels would use.

``python -m bench.triton_compile [--fp strict|reassociate] [--storage float32=bfloat16] [NAME...]``
prints one line per kernel: registers and stack bytes per thread, spill instructions, bytes of
shared memory, tensor-core (wgmma, mma) and scalar FMA instructions. Nothing is run.
"""

from __future__ import annotations

import argparse
import sys
import time

from bench.polybench.registry import Program, programs
from perfkit.analysis.dependences import Analysis
from perfkit.codegen.triton import generate_module
from perfkit.errors import PerfkitError
from perfkit.frontends.python import from_function
from perfkit.runtime.triton_compile import Compiled, compile_kernels
from perfkit.schedule.gpu_mapping import map_to_gpu
from perfkit.schedule.script import show
from perfkit.schedule.state import State


def compiled(program: Program, fp: str, storage: dict[str, str]) -> tuple[Compiled, ...]:
    """All kernels of a program under its default mapping."""
    scop, signature = from_function(program.function, **program.arguments("TINY"))
    analysis = Analysis()
    mapped = map_to_gpu(State.start(scop, fp), analysis)
    source = generate_module(mapped.state, signature, analysis, show(mapped.steps))
    return compile_kernels(source, storage=storage)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--fp", default="reassociate", choices=("strict", "reassociate"))
    parser.add_argument("--storage", default="", help="types in memory, as float32=bfloat16")
    args = parser.parse_args()
    storage = dict(pair.split("=") for pair in args.storage.split(",") if pair)
    header = ("kernel", "regs", "stack", "spills", "shared", "wgmma", "mma", "fma")
    print("{:28}{:>6}{:>7}{:>8}{:>8}{:>7}{:>6}{:>6}".format(*header))
    failed = spilled = count = 0
    for program in programs(names=args.names or None):
        start = time.perf_counter()
        try:
            kernels = compiled(program, args.fp, storage)
        except (PerfkitError, RuntimeError, ValueError) as error:
            print(f"{program.name}: {type(error).__name__}: {error}", file=sys.stderr)
            failed += 1
            continue
        for k in kernels:
            row = (k.name, k.registers, k.stack, k.spills, k.shared, k.wgmma, k.mma, k.fma)
            print("{:28}{:6}{:7}{:8}{:8}{:7}{:6}{:6}".format(*row), flush=True)
            spilled += k.spills > 0
        count += len(kernels)
        print(f"# {program.name}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    print(f"{count} kernels, {spilled} with spills, {failed} programs failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
