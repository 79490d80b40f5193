"""Random aten graphs through the backend, against eager torch: ``python -m tests.backend.fuzz``.

A program is a list of steps on a few tensors; what it does follows from its seed alone. Operators
that perfkit does not lower are mixed in, so regions begin and end everywhere.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from perfkit import backend

UNARY: tuple[Callable[[Tensor], Tensor], ...] = (
    torch.tanh, torch.sigmoid, torch.relu, torch.neg, lambda x: x * 0.5 + 0.25,
    lambda x: torch.exp(-x.abs()), lambda x: x.clamp(-1, 1), torch.nn.functional.gelu,
    lambda x: torch.where(x > 0, x, 0.1 * x), lambda x: torch.rsqrt(x * x + 1),
)  # fmt: skip
COMBINING: tuple[Callable[[Tensor, int], Tensor], ...] = (
    lambda x, d: x.cumsum(d) * 0.1, lambda x, d: torch.softmax(x, d),
    lambda x, d: x - x.mean(d, keepdim=True), lambda x, d: x.log_softmax(d),
    lambda x, d: x / (x.var(d, keepdim=True, unbiased=False) + 1).sqrt(),
    lambda x, d: x.sum(d, keepdim=True) + x, lambda x, d: x.flip(d),
    lambda x, d: torch.cat([x.narrow(d, 1, x.shape[d] - 1), x.narrow(d, 0, 1)], d),
    lambda x, d: torch.nn.functional.pad(x, (1, 0)).narrow(-1, 0, x.shape[-1]),
    lambda x, d: x + x.select(d, 0).unsqueeze(d), lambda x, d: x.tril() if d else x.triu(),
)  # fmt: skip
FOREIGN: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x: x.sort(-1)[0], lambda x: x.contiguous().view(-1)[: x.numel()].view(x.shape),
    lambda x: x.cummax(0)[0], lambda x: x[torch.arange(x.shape[0] - 1, -1, -1)],
)  # fmt: skip
BINARY: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    torch.add, torch.mul, torch.maximum, lambda a, b: a - 0.3 * b,
    lambda a, b: torch.where(a > b, a, b * 0.5), lambda a, b: a / (b.abs() + 1),
    lambda a, b: (a.unsqueeze(0) @ b.t().unsqueeze(0)).squeeze(0) @ b * 0.1,
    lambda a, b: a + b.mean(0), lambda a, b: a * b[:, :1],
)  # fmt: skip


@dataclass(frozen=True)
class Program:
    """The program of a seed: functions, and on which of the values so far each is called."""

    seed: int
    shape: tuple[int, int]
    plan: tuple[tuple[Callable[..., Tensor], tuple[int, ...]], ...]

    @staticmethod
    def of(seed: int) -> Program:
        rng = random.Random(seed)
        shape = (rng.randint(2, 9), rng.randint(2, 12))
        plan: list[tuple[Callable[..., Tensor], tuple[int, ...]]] = []
        for k in range(rng.randint(2, 8)):
            kind, x = rng.random(), rng.randrange(2 + k)
            if kind < 0.3:
                plan.append((rng.choice(UNARY), (x,)))
            elif kind < 0.65:
                plan.append((partial(rng.choice(COMBINING), d=rng.randrange(2)), (x,)))
            elif kind < 0.75:
                plan.append((rng.choice(FOREIGN), (x,)))
            else:
                plan.append((rng.choice(BINARY), (x, rng.randrange(2 + k))))
        return Program(seed, shape, tuple(plan))

    def arguments(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        plain = torch.randn(self.shape, generator=generator)
        turned = torch.randn(self.shape[::-1], generator=generator).t()
        return [plain, turned]

    def run(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        values = list(arguments)
        for function, places in self.plan:
            values.append(function(*(values[k] for k in places)))
        return tuple(values[len(arguments) :][-2:])


def check(seed: int) -> str:
    """Run one program forward and backward; "" when all agree, else what does not."""
    program = Program.of(seed)
    torch.compiler.reset()
    fast = torch.compile(program.run, backend=backend.perfkit, options={"keep": True})
    found = _run(fast, program.arguments())
    wanted = _run(program.run, program.arguments())
    for k, (a, b) in enumerate(zip(found, wanted, strict=True)):
        if a.stride() != b.stride() or a.dtype != b.dtype:
            return f"result {k}: {a.dtype} {a.stride()}, not {b.dtype} {b.stride()}"
        if not torch.allclose(a, b, rtol=2e-4, atol=2e-5, equal_nan=True):
            return f"result {k} differs by {float((a - b).abs().max()):.3g}"
    return ""


def _run(function: Callable[..., Any], arguments: list[Tensor]) -> list[Tensor]:
    leaves = [a.requires_grad_() for a in arguments]
    results = function(*leaves)
    loss = torch.stack([(r * r).mean() for r in results]).sum()
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    present = [
        torch.zeros_like(a) if g is None else g
        for g, a in zip(gradients, leaves, strict=True)
    ]
    return [*(r.detach() for r in results), *(g.contiguous() for g in present)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.backend.fuzz", description=__doc__)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    chosen = parser.parse_args()
    failures = 0
    for seed in range(chosen.first, chosen.first + chosen.n):
        try:
            problem = check(seed)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
        if problem:
            failures += 1
            sys.stdout.write(f"seed {seed}: {problem}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{chosen.n} graphs, {failures} failures\n")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
