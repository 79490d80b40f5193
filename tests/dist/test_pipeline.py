"""pipelined_switch gives the values and gradients of switch, fn, switch, for any chunk count."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist
from torch import Tensor, nn

from perfkit import dsp
from perfkit.cost.transfer import Link
from perfkit.dsp.pipeline import choose_chunks, measure_chunks, pipelined_switch, predict
from perfkit.dsp.placement import shard_interval
from perfkit.errors import SwitchError
from tests.dist.launcher import launch


def shard(x: Tensor, dim: int) -> Tensor:
    start, stop = shard_interval(x.shape[dim], dist.get_world_size(), dist.get_rank())
    return x.narrow(dim, start, stop - start).contiguous()


def compare_with_one_process() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(6, 6).double()

    def attend(y: Tensor) -> Tensor:
        """Mixes T of [B, T, S, C]."""
        z = linear(y).transpose(1, 2)
        return nn.functional.scaled_dot_product_attention(z, z, z).transpose(1, 2) + y

    for frames, positions in [(5, 9), (4, 8), (3, 2), (17, 51)]:
        x = torch.randn(2, frames, positions, 6, dtype=torch.float64)
        weight = torch.randn_like(x)
        whole = x.clone().requires_grad_()
        reference = attend(whole)
        linear.zero_grad()
        (reference * weight).sum().backward()
        expected = [p.grad.clone() for p in linear.parameters()]
        for chunks in (1, 2, 3, 100):
            linear.zero_grad()
            dsp.counters().reset()
            mine = shard(x, 1).requires_grad_()
            y = pipelined_switch(
                attend, mine, from_dim=1, to_dim=-2, size=frames, chunks=chunks, stage="t"
            )
            assert (y - shard(reference, 1)).abs().max() < 1e-10
            (y * shard(weight, 1)).sum().backward()
            assert (mine.grad - shard(whole.grad, 1)).abs().max() < 1e-10
            for p, wanted in zip(linear.parameters(), expected, strict=True):
                dist.all_reduce(p.grad)
                assert (p.grad - wanted).abs().max() < 1e-9
            used = min(chunks, positions)
            if dist.get_world_size() > 1:
                assert dsp.counters().total("t").calls == 2 * used
                assert dsp.counters().total("t (backward)").calls == 2 * used


@pytest.mark.parametrize("world", [1, 2, 3])
def test_any_number_of_chunks_gives_the_same(world: int) -> None:
    launch(world, compare_with_one_process)


def order_of_work() -> list[str]:
    """What this rank does in what order, forward and backward."""
    events: list[str] = []

    class Spy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, y: Tensor, name: str) -> Tensor:
            ctx.name = name
            events.append(f"fn {name}")
            return y.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
            events.append(f"back {ctx.name}")
            return grad.clone(), None

    count = iter(range(10))
    counters = dsp.counters()
    add = counters.add

    def spy(stage: str, *rest: Any) -> None:
        events.append("send" + stage)
        add(stage, *rest)

    counters.add = spy  # type: ignore[method-assign]
    x = torch.ones(1, 2, 8, 1, requires_grad=True)
    y = pipelined_switch(
        lambda y: Spy.apply(y, str(next(count))), x, from_dim=1, to_dim=2, chunks=3
    )
    y.sum().backward()
    return events


def test_exchanges_start_before_the_work_they_hide_behind() -> None:
    for events in launch(2, order_of_work):
        forward = ["send", "send", "fn 0", "send", "send", "fn 1", "send", "fn 2", "send"]
        assert events[:9] == forward
        # Outgoing gradients of chunk 1 are on their way before chunk 2's arithmetic, and so on.
        back = [e.replace(" (backward)", "").replace("back", "fn") for e in events[9:]]
        assert back == ["send", "send", "fn 2", "send", "send", "fn 1", "send", "fn 0", "send"]


def refusals() -> None:
    x = torch.ones(1, 2, 4, 1)
    with pytest.raises(SwitchError, match="at least one"):
        pipelined_switch(lambda y: y, x, from_dim=1, to_dim=2, chunks=0)
    with pytest.raises(SwitchError, match="dimensions 1, 7"):
        pipelined_switch(lambda y: y, x, from_dim=1, to_dim=7)
    with pytest.raises(SwitchError, match="must keep their lengths"):
        pipelined_switch(lambda y: y[:, :1], x, from_dim=1, to_dim=2)


def test_what_a_pipeline_cannot_do_is_refused() -> None:
    launch(2, refusals)


def measured() -> tuple[int, list[int]]:
    ticks = iter(range(1000))
    pace = {1: 3, 2: 1 + 5 * dist.get_rank(), 4: 2}
    now = [0.0]

    def step(chunks: int) -> None:
        next(ticks)
        now[0] += pace[chunks]

    best, medians = measure_chunks(step, candidates=(1, 2, 4), clock=lambda: now[0])
    return best, [int(medians[k]) for k in (1, 2, 4)]


def test_ranks_agree_on_the_count_that_is_fastest_on_the_slowest_rank() -> None:
    assert launch(2, measured) == [(4, [3, 6, 2])] * 2


def test_chunks_are_chosen_by_cost_one_included() -> None:
    fast, slow = Link(1e12, 1e-6), Link(1e8, 1e-6)
    assert choose_chunks(sent=1e3, ranks=8, seconds=1e-5, link=fast) == 1
    assert choose_chunks(sent=1e7, ranks=8, seconds=0.2, link=slow) == 8
    assert predict(1, 1e7, 8, 0.2, slow) == pytest.approx(0.4 + 14e-6)
    assert predict(8, 1e7, 8, 0.2, slow) < predict(2, 1e7, 8, 0.2, slow)
    with pytest.raises(SwitchError, match="candidates"):
        choose_chunks(1, 2, 1, fast, candidates=())
