"""``python -m bench.gpu.attention``: the CUDA attention kernels against every backend of torch.

One process, the same tensors, checked against each other first, taking turns; each figure is the
median over the rounds of a CUDA-event time around several launches. Operations counted: 4 S^2 D
per head forward, 10 S^2 D backward (half of that when causal). The ceiling is a bf16 matrix
product of 8192^3 on random data, measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from perfkit.ops import attention

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
TOKENS = 16384  # batch times length, so that every length fills the chip
AGREE = 2e-2


@dataclass(frozen=True)
class Row:
    """One size; rates in TFLOP/s per implementation, 0 where it refused the problem."""

    direction: str
    dim: int
    length: int
    causal: bool
    rates: dict[str, float]

    def ratio(self) -> float:
        """perfkit over the best of the others."""
        return self.rates["perfkit"] / max(r for n, r in self.rates.items() if n != "perfkit")


def milliseconds(run: Callable[[], object], launches: int) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(launches):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / launches


def ceiling() -> float:
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    return 2 * 8192**3 / milliseconds(lambda: a @ b, 10) / 1e9


def implementations(causal: bool) -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    def peer(backend: SDPBackend) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with sdpa_kernel(backend):
                return scaled_dot_product_attention(q, k, v, is_causal=causal)

        return run

    ours = {"perfkit": lambda q, k, v: attention(q, k, v, causal=causal, layout="HSD")}
    return ours | {name: peer(backend) for name, backend in BACKENDS.items()}


def measure(dim: int, length: int, causal: bool, rounds: int) -> list[Row]:
    """Forward and backward of one size.

    Raises:
        RuntimeError: a result differs from perfkit's.
    """
    heads = 2048 // dim
    torch.manual_seed(0)
    shape = (max(1, TOKENS // length), heads, length, dim)
    q, k, v, grad = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    leaves = [t.requires_grad_() for t in (q, k, v)]
    runs: dict[str, dict[str, Callable[[], object]]] = {"forward": {}, "backward": {}}
    first: list[Tensor] = []
    for name, function in implementations(causal).items():
        try:
            out = function(*leaves)
            results = [out, *torch.autograd.grad(out, leaves, grad, retain_graph=True)]
        except RuntimeError as error:
            if name == "perfkit":
                raise
            sys.stderr.write(f"{name} refused D={dim} S={length}: {str(error).splitlines()[0]}\n")
            continue
        first = first or results
        for a, b in zip(results, first, strict=True):
            off = ((a - b).float().norm() / b.float().norm()).item()
            if not off <= AGREE:
                raise RuntimeError(f"{name} D={dim} S={length}: results differ by {off:.1e}")

        def forward(function: Callable[..., Tensor] = function) -> None:
            with torch.no_grad():
                function(q, k, v)

        def backward(out: Tensor = out) -> None:
            torch.autograd.grad(out, leaves, grad, retain_graph=True)

        runs["forward"][name], runs["backward"][name] = forward, backward
    rows = []
    for direction, products in (("forward", 4), ("backward", 10)):
        work = products * shape[0] * heads * length**2 * dim / (2 if causal else 1)
        launches = max(1, min(20, int(4e12 / work)))
        times: dict[str, list[float]] = {name: [] for name in runs[direction]}
        for number in range(rounds + 1):
            order = list(times) if number % 2 == 0 else list(reversed(times))
            for name in order:
                spent = milliseconds(runs[direction][name], launches)
                if number:  # the first round warms up
                    times[name].append(spent)
        rates = {name: work / statistics.median(t) / 1e9 for name, t in times.items()}
        rows.append(Row(direction, dim, length, causal, rates))
    return rows


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.attention", description=__doc__)
    parser.add_argument("--dims", type=numbers, default=(64, 72, 128), help="64,72,...")
    parser.add_argument("--lengths", type=numbers, default=(512, 1024, 2048, 4096, 16384))
    parser.add_argument("--causal", action="store_true", help="the causal problems too")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=150, help="no new size after this time")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    given = parser.parse_args(arguments)
    stop = time.monotonic() + given.seconds
    top = ceiling()
    sys.stdout.write(f"bf16 matrix product: {top:.0f} TFLOP/s\n")
    names = ["perfkit", *BACKENDS]
    sys.stdout.write("direction    D      S causal " + " ".join(f"{n:>9}" for n in names))
    sys.stdout.write("  of best  of ceiling\n")
    rows: list[Row] = []
    for causal in (False, True) if given.causal else (False,):
        for length in given.lengths:
            for dim in given.dims:
                if time.monotonic() > stop:
                    sys.stdout.write(f"left out for time: D={dim} S={length} causal={causal}\n")
                    continue
                for row in measure(dim, length, causal, given.rounds):
                    rows.append(row)
                    figures = " ".join(f"{row.rates.get(n, 0):9.1f}" for n in names)
                    sys.stdout.write(
                        f"{row.direction:9} {row.dim:4} {row.length:6} {causal!s:6} {figures} "
                        f"{row.ratio():8.2f} {row.rates['perfkit'] / top:11.2f}\n"
                    )
                    sys.stdout.flush()
    if given.json:
        report = {"unit": "TFLOP/s", "ceiling": top, "rows": [asdict(row) for row in rows]}
        given.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
