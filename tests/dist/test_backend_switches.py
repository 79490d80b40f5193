"""torch.compile(backend="perfkit"): switches around an attention become one operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as attend

from perfkit import dsp
from perfkit.backend.compile import compile_graph, parse_options
from perfkit.backend.report import Report
from perfkit.comm.shards import shard_interval
from tests.dist.launcher import launch

HEADS, DIM = 2, 8
Step = Callable[[Tensor, int, int], Tensor]


def around(q: Tensor, k: Tensor, v: Tensor, frames: int, positions: int) -> Tensor:
    """``[B, T, S, H, D]``, sharded on T: attention along T, with both switches."""
    q, k, v = (
        dsp.switch(x, from_dim=1, to_dim=2, size=frames, stage="in").permute(0, 2, 3, 1, 4)
        for x in (q, k, v)
    )
    out = attend(q, k, v, is_causal=True).permute(0, 3, 1, 2, 4)
    return dsp.switch(out, from_dim=2, to_dim=1, size=positions, stage="out")


def heads_of(x: Tensor) -> Tensor:
    return x.unflatten(-1, (3, HEADS, DIM))


def three(x: Tensor, frames: int, positions: int) -> Tensor:
    q, k, v = heads_of(x).unbind(3)
    return around(q, k, v, frames, positions).flatten(-2)


def packed(x: Tensor, frames: int, positions: int) -> Tensor:
    """One exchange for q, k and v; batch and positions share a dimension in the attention."""
    y = dsp.switch(heads_of(x), from_dim=1, to_dim=2, size=frames)
    q, k, v = (part.movedim(1, 3).flatten(0, 1) for part in y.unbind(3))
    out = attend(q, k, v, scale=0.3).unflatten(0, (x.shape[0], -1)).movedim(3, 1).flatten(-2)
    return dsp.switch(out, from_dim=2, to_dim=1, size=positions)


def pulled(x: Tensor, frames: int, positions: int) -> Tensor:
    """No heads, and what comes out stays switched."""
    q, k, v = x.unflatten(-1, (3, -1)).unbind(3)
    q, k, v = (dsp.switch(t, from_dim=1, to_dim=2, size=frames).transpose(1, 2) for t in (q, k, v))
    y = attend(q, k, v).transpose(1, 2)
    return dsp.gather(y.sin(), dim=2, size=positions, grad="partial")


def pushed(x: Tensor, frames: int, positions: int) -> Tensor:
    """Attention along S, which every rank has, then the switch."""
    q, k, v = (t.transpose(2, 3) for t in heads_of(x).unbind(3))
    y = attend(q, k, v).transpose(2, 3).flatten(-2)
    y = dsp.switch(y, from_dim=1, to_dim=2, size=frames)
    return dsp.gather(y.sin(), dim=2, size=positions, grad="partial")


def masked(x: Tensor, frames: int, positions: int) -> Tensor:
    q, k, v = (
        dsp.switch(t, from_dim=1, to_dim=2, size=frames).permute(0, 2, 3, 1, 4)
        for t in heads_of(x).unbind(3)
    )
    mask = torch.ones(frames, frames, dtype=torch.bool).tril()
    return attend(q, k, v, attn_mask=mask)


def used_twice(x: Tensor, frames: int, positions: int) -> Tensor:
    y = dsp.switch(heads_of(x), from_dim=1, to_dim=2, size=frames)
    q, k, v = (part.permute(0, 2, 3, 1, 4) for part in y.unbind(3))
    return attend(q, k, v).mean() + y.sum()


FUSED: dict[str, Step] = {"three": three, "packed": packed, "pulled": pulled, "pushed": pushed}
LEFT: dict[str, Step] = {"masked": masked, "used twice": used_twice}
STEPS = {**FUSED, **LEFT}
REASONS = {"masked": "mask", "used twice": "something else uses"}


class Model(nn.Module):
    """Tokenwise work before and after a step, for Inductor."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step, self.qkv = step, nn.Linear(6, 3 * HEADS * DIM)

    def forward(self, x: Tensor, frames: int, positions: int) -> Tensor:
        return self.step(self.qkv(x.tanh()), frames, positions).square()


def compared(name: str, fallback: str, lengths: list[tuple[int, int]]) -> list[tuple[Any, ...]]:
    """Per shape: largest relative error of output and gradients against eager, the bytes that
    left inside an attention and by switches, and the reasons told."""
    torch.manual_seed(0)
    model = Model(STEPS[name])
    report = Report()
    chosen = parse_options(None, {"fallback": fallback})
    fast = torch.compile(
        model, backend=lambda gm, xs: compile_graph(gm, xs, chosen, report), fullgraph=True
    )
    counters = dsp.counters()
    found = []
    for frames, positions in lengths:
        whole = torch.randn(2, frames, positions, 6)
        low, high = shard_interval(frames, dist.get_world_size(), dist.get_rank())
        mine = whole[:, low:high]
        results, inside, outside = [], 0, 0
        for run in (model, fast):
            x = mine.clone().requires_grad_()
            counters.reset()
            out = run(x, frames, positions)
            model.zero_grad()
            out.sum().backward()
            inside = counters.total(primitive="switch_attention").sent
            outside = counters.total(primitive="switch").sent
            results.append([out.detach(), x.grad, *(p.grad for p in model.parameters())])
        errors = [
            float((b - a).abs().max() / a.abs().max()) for a, b in zip(*results, strict=True)
        ]
        told = [(r.kept, r.reason) for r in report.switches]
        found.append((max(errors), inside, outside, told))
    return found


@pytest.mark.parametrize("name", FUSED)
def test_switches_and_attention_become_one_operator(name: str) -> None:
    for found in launch(2, compared, name, "eager", [(6, 10), (9, 7)], timeout=240):
        for error, inside, outside, told in found:
            assert error < 2e-5
            assert inside > 0 and outside == 0, told
            assert told and all(kept and "fused" in why for kept, why in told)


@pytest.mark.parametrize("name", LEFT)
def test_what_does_not_fit_stays_and_says_why(name: str) -> None:
    for found in launch(2, compared, name, "eager", [(6, 10)], timeout=240):
        for error, inside, _, told in found:
            assert error < 2e-5 and inside == 0
            assert [(kept, REASONS[name] in why) for kept, why in told] == [(False, True)]


@pytest.mark.slow
def test_inductor_runs_the_rest() -> None:
    for found in launch(2, compared, "three", "inductor", [(6, 10), (9, 7)], timeout=400):
        for error, inside, outside, _ in found:
            assert error < 2e-5 and inside > 0 and outside == 0
