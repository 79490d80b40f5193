"""Whole models, unmodified, on several ranks: outputs and all gradients of one rank."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist
from torch import Tensor, nn

from perfkit import dsp
from perfkit.errors import CheckFailed, PlanError
from tests.dist.launcher import launch
from tests.dist.parallel_models import built, distance, numbers, outputs_and_gradients

NEEDS = {"latte": "diffusers", "timesformer": "transformers"}
EXPLICIT: Mapping[str, Mapping[str, dsp.Mixes]] = {
    "latte": {
        "transformer_blocks.*": dsp.Mixes("S"),
        "temporal_transformer_blocks.*": dsp.Mixes("T"),
    },
    "timesformer": {
        "encoder.layer.*.temporal_attention": dsp.Mixes("T"),
        "encoder.layer.*.attention": dsp.Mixes("S"),
    },
    "stdit": {"spatial.*": dsp.Mixes("S"), "temporal.*": dsp.Mixes("T")},
    "axial": {
        "blocks.[02].attention": dsp.Mixes("columns"),
        "blocks.[13].attention": dsp.Mixes("rows"),
    },
}
Case = tuple[str, tuple[int, ...], str]


def cases(*wanted: Case) -> list[Case]:
    """Those whose library is installed."""
    return [c for c in wanted if c[0] not in NEEDS or find_spec(NEEDS[c[0]]) is not None]


def equal_to_one_rank(wanted: list[Case]) -> list[tuple[str, int, int]]:
    """Compares; returns (model, switches sent, sharded bytes) for each case."""
    found = []
    for name, sizes, plan in wanted:
        model, inputs = built(name, *sizes)
        reference = outputs_and_gradients(model, inputs)
        keys = list(model.state_dict())
        kind = type(model)
        chosen: Any = EXPLICIT[name] if plan == "explicit" else "auto"
        dsp.parallelize(model, None, chosen, sample=inputs)
        assert type(model) is kind and list(model.state_dict()) == keys
        counters = dsp.counters()
        counters.reset()
        error = distance(outputs_and_gradients(model, inputs), reference)
        assert error < 1e-9, (name, sizes, plan, error)
        forward = [c for c in counters if not c.stage.endswith("(backward)")]
        switches = sum(c.calls for c in forward if c.primitive == "switch")
        found.append((name, switches, sum(c.sent for c in forward)))
    return found


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_model_equals_one_rank(world: int) -> None:
    wanted = cases(
        ("latte", (5, 9), "auto"),
        ("timesformer", (5, 9), "auto"),
        ("stdit", (5, 9), "auto"),
        ("axial", (5, 7), "auto"),
        ("evoformer", (5, 7), "auto"),
    )
    for found in launch(world, equal_to_one_rank, wanted, timeout=240):
        for name, _, sent in found:
            assert world == 1 or sent > 0, f"{name} was not sharded"


@pytest.mark.parametrize("world", [2])
def test_explicit_plans_equal_one_rank(world: int) -> None:
    wanted = cases(*((name, (5, 9), "explicit") for name in EXPLICIT))
    launch(world, equal_to_one_rank, wanted, timeout=240)


# -- it stays the user's module ---------------------------------------------------------------


def other_shapes_and_modes() -> None:
    model, inputs = built("stdit", 5, 9)
    plain = copy.deepcopy(model)
    dsp.parallelize(model, None, EXPLICIT["stdit"], sample=inputs)
    for frames, rows, batch in [(4, 4, 2), (7, 2, 1), (1, 3, 2)]:
        again = {
            "x": numbers(batch, 4, frames, 2 * rows, 6),
            "timestep": torch.tensor([5] * batch),
            "text": numbers(batch, 3, 6, seed=1),
        }
        wanted = outputs_and_gradients(plain, again)
        assert distance(outputs_and_gradients(model, again), wanted) < 1e-9
    assert "axes" in dsp.explain(model)
    x = inputs["x"].clone().requires_grad_()
    y = x.detach().clone().requires_grad_()
    model(**{**inputs, "x": x}).square().sum().backward()
    plain(**{**inputs, "x": y}).square().sum().backward()
    assert (x.grad - y.grad).abs().max() < 1e-9 * y.grad.abs().max()
    dsp.restore(model)
    with pytest.raises(PlanError, match="not parallelized"):
        dsp.explain(model)


def test_other_shapes_input_gradients_and_undoing() -> None:
    launch(2, other_shapes_and_modes, timeout=120)


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
    launch(2, accumulated_gradients, timeout=120)


def beside_ddp() -> None:
    """Two replicas of different data, each over two ranks; DDP averages over all four."""
    mesh = dist.init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "sp"))
    model, _ = built("axial", 5, 7)
    batches = [{"x": numbers(2, 5, 7, 16, seed=seed)} for seed in range(2)]
    single = [outputs_and_gradients(model, batch) for batch in batches]
    average = {
        name: (first + single[1][1][name]) / 2
        for name, first in single[0][1].items()
        if first is not None
    }
    mine = mesh.get_local_rank("dp")
    dsp.parallelize(model, mesh["sp"], "auto", sample=batches[0], gradients="mean")
    model.zero_grad(set_to_none=True)
    wrapped = nn.parallel.DistributedDataParallel(model)
    outputs, found = outputs_and_gradients(wrapped, batches[mine])
    named = {name.removeprefix("module."): g for name, g in found.items()}
    assert distance((outputs, named), (single[mine][0], average)) < 1e-9


def test_ddp_over_the_flattened_mesh_averages_over_replicas() -> None:
    launch(4, beside_ddp, timeout=120)


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
    for text in launch(2, verified, timeout=120):
        assert "switch" in text and "measured" in text
        assert "sharded on" in text


class Dropping(nn.Module):
    """Draws on sharded tensors, then on a replicated one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows = x + (x @ x.transpose(-1, -2)).softmax(-1) @ x
        y = nn.functional.dropout(self.first(rows), 0.5)
        y = y.transpose(1, 2)
        y = y + (y @ y.transpose(-1, -2)).softmax(-1) @ y
        return y, torch.rand(3)


def dropout_on_parts() -> tuple[list[float], list[float]]:
    model = Dropping().train()
    x = torch.ones(1, 6, 8, 4)
    dsp.parallelize(model, None, "auto", sample={"x": x})
    torch.manual_seed(3)
    y, drawn = model(x)
    torch.manual_seed(3)
    again, _ = model(x)
    assert torch.equal(y, again)
    return y.flatten().tolist(), drawn.tolist()


def test_dropout_is_reproducible_and_leaves_generators_in_step() -> None:
    first, second = launch(2, dropout_on_parts, timeout=120)
    assert first == second


# -- refusals ---------------------------------------------------------------------------------


class DataDependent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x.sum(-1) > 0]


class OneAxis(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


def refusals() -> None:
    model, inputs = built("axial", 5, 7)
    for plan, message in [
        ({"nothing.*": dsp.Mixes("S")}, "matches no module"),
        ({"blocks.*.mlp": dsp.Mixes("S")}, "attends over no axis"),
        ({"blocks.*": dsp.Mixes("S")}, "attends over no axis"),
        (
            {"blocks.0": dsp.Mixes("S"), "blocks.2": dsp.Mixes("T")},
            "same axis",
        ),
    ]:
        with pytest.raises(PlanError, match=message):
            dsp.parallelize(model, None, plan, sample=inputs)
    with pytest.raises(PlanError, match="does not run on the sample"):
        dsp.parallelize(model, None, sample={"x": numbers(2, 5, 7, 3)})
    with pytest.raises(PlanError, match="no axis can be sharded"):
        dsp.parallelize(OneAxis(), None, sample=numbers(2, 4, 6, 8))
    with pytest.raises(PlanError, match="depend on data"):
        dsp.parallelize(DataDependent(), None, sample=numbers(4, 5))
    with pytest.raises(PlanError, match="unknown plan"):
        dsp.parallelize(model, None, "zigzag", sample=inputs)  # type: ignore[arg-type]
    dsp.parallelize(model, None, sample=inputs)
    with pytest.raises(PlanError, match="already"):
        dsp.parallelize(model, None, sample=inputs)
    with pytest.raises(PlanError, match="dimensions"):
        model(numbers(7, 16))


def test_refusals() -> None:
    launch(1, refusals, timeout=120)
