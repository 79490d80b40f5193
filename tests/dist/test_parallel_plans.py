"""Ulysses, ring attention and Megatron-SP as plans of whole models."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from bench.models.stdit import Config, STDiT
from perfkit import dsp
from perfkit.comm.shards import shard_length
from perfkit.errors import PlanError
from tests.dist.launcher import launch
from tests.dist.models import Case, compare_all
from tests.dist.parallel_models import built, distance, installed, numbers, outputs_and_gradients

PEERS = ("dsp", "ulysses", "megatron", "ring", "fused")


@pytest.mark.parametrize("world", [2, 3])
def test_every_plan_equals_one_rank(world: int) -> None:
    cases = [Case("stdit", (5, 9), plan) for plan in PEERS]
    cases += [Case("latte", (5, 9), plan) for plan in PEERS if installed("latte")]
    for outcomes in launch(world, compare_all, cases, timeout=300):
        for found in outcomes:
            assert found.good and found.sent > 0, found


class Flat(nn.Module):
    """One axis only: an ordinary transformer block with three heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.norm = nn.LayerNorm(12)
        self.mlp = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        y = scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm(x))


def single_axis() -> dict[str, tuple[int, int]]:
    """Bytes sent forward by each plan, and what Ulysses and ring should send."""
    torch.manual_seed(0)
    sent = {}
    for plan in ("auto", "ulysses", "megatron", "ring"):
        model = Flat().double()
        inputs = {"x": numbers(2, 7, 12)}
        wanted = outputs_and_gradients(model, inputs)
        dsp.parallelize(model, None, plan, sample=inputs)
        counters = dsp.counters()
        counters.reset()
        assert distance(outputs_and_gradients(model, inputs), wanted) < 1e-9, plan
        text = dsp.explain(model)
        assert {"auto": "ulysses"}.get(plan, plan) in text, text
        sent[plan] = counters.total(primitive="switch").sent
    return sent


def test_a_single_axis_is_exchanged_for_heads_by_auto() -> None:
    every = launch(2, single_axis, timeout=300)
    for rank, sent in enumerate(every):
        assert sent["auto"] == sent["ulysses"] > 0
        assert sent["ring"] == sent["megatron"] == 0
        # q, k, v and the output [2, 7, 12] of 8 bytes: heads 2 and 1, positions 4 and 3; and back.
        mine, theirs = shard_length(7, 2, rank), shard_length(7, 2, 1 - rank)
        heads, others = shard_length(3, 2, rank), shard_length(3, 2, 1 - rank)
        forward = 8 * 2 * 4 * (3 * mine * others + heads * theirs)
        backward = 8 * 2 * 4 * (3 * theirs * heads + others * mine)
        assert sent["ulysses"] == forward + backward


def chosen() -> dict[str, tuple[float, str]]:
    """By kernels and element type, the error against one rank and the text of the plan."""
    found = {}
    for kernels in ("plain", "fused", "auto"):
        for dtype in (torch.float32, torch.float64):
            model, inputs = built("stdit", 5, 9, dtype=dtype)
            wanted = outputs_and_gradients(model, inputs)
            dsp.parallelize(model, None, "auto", sample=inputs, kernels=kernels)
            error = distance(outputs_and_gradients(model, inputs), wanted)
            found[f"{kernels} {dtype}"] = error, dsp.explain(model)
    return found


@pytest.mark.parametrize("world", [2, 3])
def test_kernels_are_chosen_by_price(world: int) -> None:
    for found in launch(world, chosen, timeout=300):
        for name, (error, text) in found.items():
            assert error < (1e-5 if "float32" in name else 1e-9), name
            assert ("kernels:" in text) != name.startswith("plain"), text
            # By price where it can be: doubles have no fused kernel.
            inside = name.startswith("fused") or name == "auto torch.float32"
            assert ("switched inside the attention" in text) == inside, text


class Masked(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x + scaled_dot_product_attention(x, x, x, attn_mask=mask)


def refused() -> None:
    plans: list[tuple[nn.Module, dict[str, Any], str, str]] = [
        (Masked(), {"x": numbers(2, 2, 6, 4), "mask": numbers(6, 6)}, "ring", "without mask"),
        (Masked(), {"x": numbers(2, 2, 6, 4), "mask": numbers(6, 6)}, "ulysses", "heads"),
        (Masked(), {"x": numbers(2, 2, 6, 4), "mask": numbers(6, 6)}, "megatron", "linear"),
    ]
    model, inputs = built("axial", 5, 7)
    plans += [(model, inputs, "ulysses", "multi_head_attention_forward")]
    plans += [(model, inputs, "ring", "multi_head_attention_forward")]
    for model, inputs, plan, message in plans:
        with pytest.raises(PlanError, match=message):
            dsp.parallelize(model, None, plan, sample=inputs)


def test_models_that_a_plan_does_not_fit() -> None:
    launch(1, refused, timeout=300)


def uneven_heads() -> None:
    torch.manual_seed(0)
    model = STDiT(Config(width=24, heads=3, depth=1, text_width=6)).double().eval()
    inputs = {
        "x": numbers(2, 4, 5, 6, 6),
        "timestep": torch.tensor([3, 500]),
        "text": numbers(2, 5, 6, seed=1),
    }
    wanted = outputs_and_gradients(model, inputs)
    for plan in ("ulysses", "megatron"):
        dsp.parallelize(model, None, plan, sample=inputs)
        assert distance(outputs_and_gradients(model, inputs), wanted) < 1e-9, plan
        dsp.restore(model)


def test_heads_that_do_not_divide_by_the_ranks() -> None:
    launch(2, uneven_heads, timeout=300)
