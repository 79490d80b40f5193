"""The attention kernels alone against torch's, on the CPU.

Both run on the same tensors with the same threads, checked against each other first, and take
turns. A size's figure is the median over the rounds; the ratio is the median of the rounds' own
ratios, with the interval that holds the middle half of them. Operations counted: 4 S^2 D per head
forward (two products), 10 S^2 D backward (five).
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from perfkit.ops import attention

LENGTHS = (512, 1024, 4096)
DIMS = (32, 64, 72, 128)
DIRECTIONS = ("forward", "backward")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Largest relative difference of the two results, as a norm: more means that one is wrong.
AGREE = {"fp32": 1e-4, "bf16": 2e-2}


@dataclass(frozen=True)
class Row:
    """One size; rates in TFLOP/s, ``ratio`` is torch's time over ours."""

    dtype: str
    direction: str
    length: int
    dim: int
    heads: int
    ours: float
    torch: float
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int


def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attention(q, k, v, layout="HSD")


def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q, k, v)


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def measure(
    dtype: str, length: int, dim: int, heads: int, rounds: int,
    directions: Sequence[str] = DIRECTIONS,
) -> Iterator[Row]:  # fmt: skip
    """Forward and backward of one size, or one of them.

    Raises:
        RuntimeError: the two results differ.
    """
    torch.manual_seed(0)
    sizes = (1, heads, length, dim)
    q, k, v, grad = (torch.randn(sizes).to(DTYPES[dtype]) for _ in range(4))
    inputs = [t.requires_grad_() for t in (q, k, v)]
    outs = [function(*inputs) for function in (ours, theirs)]
    results = [[out] for out in outs]
    if "backward" in directions:
        for found in results:
            found += torch.autograd.grad(found[0], inputs, grad, retain_graph=True)
    for name, a, b in zip(("out", "d_q", "d_k", "d_v"), *results, strict=False):
        difference = ((a - b).float().norm() / b.float().norm()).item()
        if not difference <= AGREE[dtype]:
            raise RuntimeError(f"{dtype} S={length} D={dim}: {name} differs by {difference:.1e}")

    def forward(function: Callable[..., Tensor]) -> Callable[[], object]:
        def run() -> None:
            with torch.no_grad():
                function(q, k, v)

        return run

    def backward(out: Tensor) -> Callable[[], object]:
        return lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True)

    for direction, products, mine, peer in (
        ("forward", 4, forward(ours), forward(theirs)),
        ("backward", 10, backward(outs[0]), backward(outs[1])),
    ):
        if direction not in directions:
            continue
        pairs = []
        for number in range(rounds + 1):
            # Who goes first changes, so that neither always finds the caches of the other.
            first, second = (mine, peer) if number % 2 == 0 else (peer, mine)
            a, b = timed(first), timed(second)
            pairs.append((a, b) if number % 2 == 0 else (b, a))
        pairs = pairs[1:]  # the first round warms up
        work = products * heads * length * length * dim / 1e12
        ratios = sorted(b / a for a, b in pairs)
        low, middle, high = (statistics.quantiles(ratios, n=4) if rounds > 1 else ratios * 3)[:3]
        yield Row(
            dtype, direction, length, dim, heads,
            ours=work / statistics.median(a for a, _ in pairs),
            torch=work / statistics.median(b for _, b in pairs),
            ratio=middle, ratio_low=low, ratio_high=high, rounds=rounds,
        )  # fmt: skip


def geomeans(rows: list[Row]) -> dict[str, float]:
    """Geometric mean of the ratios per element type and direction."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(f"{row.dtype} {row.direction}", []).append(row.ratio)
    return {name: math.exp(statistics.fmean(map(math.log, r))) for name, r in found.items()}


def line(row: Row) -> str:
    return (
        f"{row.dtype:5} {row.direction:9} {row.length:6} {row.dim:4} {row.ours:8.3f} "
        f"{row.torch:8.3f} {row.ratio:7.2f}  ({row.ratio_low:.2f} .. {row.ratio_high:.2f})\n"
    )
