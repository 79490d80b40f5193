"""Whole models, unmodified, on several ranks: outputs and all gradients of one rank.

The whole matrix of models, plans, types, lengths and worlds: ``python -m tests.dist.models``.
"""

from __future__ import annotations

import copy

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist

from perfkit import dsp
from perfkit.errors import CheckFailed, PlanError
from tests.dist.launcher import launch
from tests.dist.models import Case, compare_all
from tests.dist.parallel_models import (
    EXPLICIT,
    built,
    distance,
    installed,
    numbers,
    outputs_and_gradients,
)

EVERY = ("latte", "timesformer", "stdit", "axial", "evoformer")


def check(world: int, *cases: Case, timeout: float = 400.0) -> None:
    wanted = [case for case in cases if installed(case.model)]
    for outcomes in launch(world, compare_all, wanted, timeout=timeout):
        for found in outcomes:
            assert found.good, found
            assert world == 1 or found.sent > 0, f"{found.case} was not sharded"


@pytest.mark.parametrize("world", [1, 3])
def test_every_model_equals_one_rank(world: int) -> None:
    check(world, *(Case(name, (5, 9)) for name in EVERY))


def test_explicit_plans_and_short_types_equal_one_rank() -> None:
    cases = [Case(name, (5, 9), "explicit") for name in EVERY]
    check(2, *cases, Case("stdit", (17, 51), "auto", "fp32"))


def test_more_ranks_with_lengths_that_do_not_divide() -> None:
    check(4, Case("axial", (17, 51)), Case("stdit", (9, 3), "explicit"), timeout=300)


def switches_of_latte(depths: tuple[int, ...]) -> list[int]:
    found = []
    for depth in depths:
        model, inputs = built("latte", 8, 12, depth)
        dsp.parallelize(model, None, "auto", sample=inputs)
        counters = dsp.counters()
        counters.reset()
        with torch.no_grad():
            model(**inputs)
        found.append(counters.total(primitive="switch").calls)
    return found


def test_latte_takes_one_switch_less_than_it_has_blocks() -> None:
    pytest.importorskip("diffusers")
    for counts in launch(2, switches_of_latte, (1, 3), timeout=300):
        assert counts[0] <= 2 * 1 - 1 and counts[1] <= 2 * 3 - 1


def checkpointed() -> list[tuple[int, int]]:
    """Bytes and calls of a step without and with activation checkpointing."""
    model, inputs = built("latte", 5, 9)
    wanted = outputs_and_gradients(model, inputs)
    dsp.parallelize(model, None, "auto", sample=inputs)
    counters = dsp.counters()
    counts = []
    for _ in range(2):
        counters.reset()
        assert distance(outputs_and_gradients(model, inputs), wanted) < 1e-9
        counts.append((counters.total().sent, counters.total().calls))
        model.train()
        model.enable_gradient_checkpointing()
    assert model.gradient_checkpointing
    return counts


def test_checkpointing_sends_nothing_again() -> None:
    pytest.importorskip("diffusers")
    for plain, recomputed in launch(2, checkpointed, timeout=300):
        assert plain == recomputed


def accumulated_gradients() -> None:
    model, inputs = built("axial", 5, 7)
    plain = copy.deepcopy(model)
    dsp.parallelize(model, None, "auto", sample=inputs)
    for each in (model, plain):
        for seed in range(3):
            each(numbers(2, 5, 7, 16, seed=seed)).square().sum().backward()
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert (p.grad - q.grad).abs().max() < 1e-9 * max(1.0, float(q.grad.abs().max())), name
        every = [torch.empty_like(p.grad) for _ in range(dist.get_world_size())]
        dist.all_gather(every, p.grad)
        assert all(torch.equal(every[0], g) for g in every), name


def test_gradients_accumulate_and_are_the_same_bits_on_every_rank() -> None:
    launch(2, accumulated_gradients, timeout=300)


def verified() -> str:
    model, inputs = built("axial", 5, 7)
    dsp.parallelize(model, None, "auto", sample=inputs)
    model.train()
    p = next(model.parameters())
    p.grad = torch.ones_like(p)
    result = dsp.verify(model, inputs)
    assert model.training and torch.equal(p.grad, torch.ones_like(p))
    assert result.gradients < 1e-9
    with pytest.raises(CheckFailed, match="tolerance"):
        dsp.verify(model, inputs, tolerance=-1.0)
    return dsp.explain(model, inputs)


def test_verify_and_explain() -> None:
    for text in launch(2, verified, timeout=300):
        assert "switch" in text and "measured" in text
        assert "sharded on" in text
