"""Timing a Triton kernel: on copies of what it writes, by the GPU's clock where there is one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from perfkit.runtime.triton_kernel import TritonKernel


class Trial:
    """A kernel bound to torch tensors and numbers; what it writes is restored before every run."""

    def __init__(self, kernel: TritonKernel, arguments: Sequence[Any]) -> None:
        """``arguments`` in the signature's order; written tensors are copied, never touched."""
        self.kernel = kernel
        self.pristine = list(arguments)
        self.memory = [
            value.clone() if p.written else value
            for p, value in zip(kernel.signature.inputs, arguments, strict=True)
        ]
        self.cuda = any(getattr(v, "is_cuda", False) for v in self.memory)

    def __call__(self) -> float:
        """Seconds of one run, launches included."""
        import torch

        for p, copy, value in zip(
            self.kernel.signature.inputs, self.memory, self.pristine, strict=True
        ):
            if p.written:
                copy.copy_(value)
        if not self.cuda:
            start = time.perf_counter()
            self.kernel(*self.memory)
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self.kernel(*self.memory)
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3


def trial_of(kernel: TritonKernel, values: Sequence[Any]) -> Trial:
    """A trial on a call's ordered arguments. Raises what the call would."""
    return Trial(kernel, kernel.bind(values))


def interleaved(trials: Sequence[Trial], rounds: int = 3) -> list[tuple[float, ...]]:
    """Seconds of each trial, round by round in turn, after one run each that warms up."""
    found: list[list[float]] = [[] for _ in trials]
    for number in range(rounds + 1):
        for seconds, trial in zip(found, trials, strict=True):
            taken = trial()
            if number:
                seconds.append(taken)
    return [tuple(seconds) for seconds in found]


__all__ = ["Trial", "interleaved", "trial_of"]
