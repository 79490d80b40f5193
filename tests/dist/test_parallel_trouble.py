"""Parallelized models and input that does not fit: a clear error or a correct run, and no hang."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.models.axial import AxialTransformer
from perfkit import dsp
from perfkit.errors import MismatchError, PlanError
from tests.dist.launcher import launch
from tests.dist.models import Case, compare_all
from tests.dist.parallel_models import EXPLICIT, built, distance, numbers, outputs_and_gradients


class DataDependent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x.sum(-1) > 0]


class OneAxis(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


def refusals() -> None:
    model, inputs = built("axial", 5, 7)
    plans: list[tuple[Any, str]] = [
        ({"nothing.*": dsp.Mixes("S")}, "matches no module"),
        ({"blocks.*.mlp": dsp.Mixes("S")}, "attends over no axis"),
        ({"blocks.*": dsp.Mixes("S")}, "attends over no axis"),
        ({"blocks.0": dsp.Mixes("S"), "blocks.2": dsp.Mixes("T")}, "same axis"),
        ("zigzag", "unknown plan"),
    ]
    for plan, message in plans:
        with pytest.raises(PlanError, match=message):
            dsp.parallelize(model, None, plan, sample=inputs)
    with pytest.raises(PlanError, match="does not run on the sample"):
        dsp.parallelize(model, None, sample={"x": numbers(2, 5, 7, 3)})
    with pytest.raises(PlanError, match="no axis can be sharded"):
        dsp.parallelize(OneAxis(), None, sample=numbers(2, 4, 6, 8))
    with pytest.raises(PlanError, match="depend on data"):
        dsp.parallelize(DataDependent(), None, sample=numbers(4, 5))
    dsp.parallelize(model, None, sample=inputs)
    with pytest.raises(PlanError, match="already"):
        dsp.parallelize(model, None, sample=inputs)
    with pytest.raises(PlanError, match="dimensions"):
        model(numbers(7, 16))
    with pytest.raises(PlanError, match="was a tensor in the sample"):
        model(None)


def test_refusals() -> None:
    launch(1, refusals, timeout=300)


def odd_lengths() -> None:
    """Planned on a long sample, run on axes shorter than the ranks, and on axes of length 1."""
    model, inputs = built("axial", 5, 7)
    plain, _ = built("axial", 5, 7)
    dsp.parallelize(model, None, "auto", sample=inputs)
    for shape in [(2, 2, 3, 16), (1, 1, 7, 16), (2, 5, 1, 16), (1, 1, 1, 16)]:
        again = {"x": numbers(*shape)}
        wanted = outputs_and_gradients(plain, again)
        assert distance(outputs_and_gradients(model, again), wanted) < 1e-9, shape


def test_axes_shorter_than_the_ranks_leave_some_without_work() -> None:
    launch(3, odd_lengths, timeout=300)


def test_a_plan_made_on_axes_shorter_than_the_ranks() -> None:
    cases = [Case("stdit", (2, 3)), Case("stdit", (2, 3), "explicit"), Case("stdit", (1, 9))]
    outcomes = launch(4, compare_all, cases, timeout=300)
    for first, second, third in outcomes:
        assert first.good and second.good, (first, second)
        # Nothing attends over an axis of length 1, so there is no second axis to shard.
        assert third.good or "no axis can be sharded" in third.trouble, third


def heads_that_do_not_divide() -> None:
    """Three heads over two ranks: a switch splits no heads; Ulysses gives one rank two of them."""
    torch.manual_seed(0)
    model = AxialTransformer(width=12, heads=3).double()
    inputs = {"x": numbers(2, 5, 7, 12)}
    wanted = outputs_and_gradients(model, inputs)
    dsp.parallelize(model, None, "auto", sample=inputs)
    assert distance(outputs_and_gradients(model, inputs), wanted) < 1e-9


def test_heads_that_do_not_divide_by_the_ranks() -> None:
    launch(2, heads_that_do_not_divide, timeout=300)


def other_order() -> str:
    first, inputs = built("axial", 5, 7)
    second, others = built("stdit", 5, 9)
    dsp.parallelize(first, None, "auto", sample=inputs)
    dsp.parallelize(second, None, EXPLICIT["stdit"], sample=others)
    calls = [lambda: first(**inputs), lambda: second(**others)]
    with pytest.raises(MismatchError) as caught:
        for call in calls if dist.get_rank() == 0 else reversed(calls):
            call()
    return str(caught.value)


def test_models_called_in_another_order_are_an_error_in_debug_mode() -> None:
    check = {"PERFKIT_DSP_CHECK": "1", "PERFKIT_DSP_TIMEOUT": "5"}
    for text in launch(2, other_order, environment=check, timeout=300):
        assert "rank 0" in text and "rank 1" in text and "switch" in text
