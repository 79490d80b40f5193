"""Random numbers on parts of a tensor: a rank's own, and the ranks' generators stay in step.

A seed is drawn from the common generator, on the CPU, so every rank draws the same one and
recomputation under a checkpoint, which restores that generator, finds the same numbers. Each rank
adds its number to the seed. What is replicated draws from the common generator as ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from perfkit.dsp.operators import NAMESPACE, define
from perfkit.frontends import fx_access
from perfkit.frontends.fx_call import Call

_ops = getattr(torch.ops, NAMESPACE)
_SEEDS = 1 << 62


def draws(call: Call) -> bool:
    """Whether a call draws random numbers."""
    if call.name in ("dropout", "alpha_dropout"):
        return bool(call.arg(1, "p", 0.5)) and bool(call.arg(2, "training", True))
    if call.name == "scaled_dot_product_attention":
        return bool(call.arg(4, "dropout_p", 0.0))
    return call.name in fx_access.RANDOM


def run(func: Any, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], rank: int) -> Any:
    """Make a call that draws, on this rank's part."""
    if call.name == "dropout" and not call.arg(3, "inplace", False):
        return dropout(args[0], float(call.arg(1, "p", 0.5)), rank)
    with own_numbers(rank, next(x for x in args if isinstance(x, Tensor)).device):
        return func(*args, **kwargs)


def dropout(x: Tensor, p: float, rank: int) -> Tensor:
    """As torch's dropout in training; it compiles."""
    seed = torch.randint(_SEEDS, ())
    return x * _ops.keep_mask(x.detach(), seed, p, rank)


def _keep_mask(x: Tensor, seed: Tensor, p: float, rank: int) -> Tensor:
    generator = torch.Generator(x.device).manual_seed((int(seed) + rank) % _SEEDS)
    mask = torch.empty_like(x).bernoulli_(1.0 - p, generator=generator)
    return mask if p in (0.0, 1.0) else mask.div_(1.0 - p)


def _keep_mask_fake(x: Tensor, seed: Tensor, p: float, rank: int) -> Tensor:
    return torch.empty_like(x)


define("keep_mask(Tensor x, Tensor seed, float p, int rank) -> Tensor", _keep_mask, _keep_mask_fake)


@contextlib.contextmanager
def own_numbers(rank: int, device: torch.device) -> Iterator[None]:
    """The default generators are this rank's own inside this context."""
    seed = int(torch.randint(_SEEDS, ()).item())
    devices = [device] if device.type != "cpu" else []
    with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
        torch.manual_seed((seed + rank) % _SEEDS)
        yield
