"""Sequence parallelism beside data parallelism, and random numbers on several ranks."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

from perfkit import dsp
from perfkit.errors import PlanError
from tests.dist.launcher import launch
from tests.dist.parallel_models import built, distance, numbers, outputs_and_gradients

Results = tuple[list[Tensor], dict[str, Tensor | None]]


def two_by_two() -> tuple[dist.DeviceMesh, nn.Module, dict[str, Tensor], Results]:
    """A (dp, sp) mesh, a model, this replica's batch, its output and the average gradients."""
    mesh = dist.init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "sp"))
    model, _ = built("axial", 5, 7)
    batches = [{"x": numbers(2, 5, 7, 16, seed=seed)} for seed in range(2)]
    single = [outputs_and_gradients(model, batch) for batch in batches]
    average: dict[str, Tensor | None] = {
        name: (first + single[1][1][name]) / 2
        for name, first in single[0][1].items()
        if first is not None
    }
    model.zero_grad(set_to_none=True)
    mine = mesh.get_local_rank("dp")
    return mesh, model, batches[mine], (single[mine][0], average)


def beside_ddp() -> None:
    mesh, model, batch, wanted = two_by_two()
    dsp.parallelize(model, mesh["sp"], "auto", sample=batch, gradients="mean")
    wrapped = nn.parallel.DistributedDataParallel(model)
    outputs, found = outputs_and_gradients(wrapped, batch)
    named = {name.removeprefix("module."): g for name, g in found.items()}
    assert distance((outputs, named), wanted) < 1e-9
    replicas = mesh["dp"].get_group()
    only = nn.parallel.DistributedDataParallel(model, process_group=replicas)
    with pytest.raises(PlanError, match="flattened"):
        only(**batch)


def test_ddp_over_the_flattened_mesh_averages_over_replicas() -> None:
    launch(4, beside_ddp, timeout=300)


def beside_fsdp() -> None:
    mesh, model, batch, wanted = two_by_two()
    dsp.parallelize(model, mesh["sp"], "auto", sample=batch, gradients="mean")
    for block in model.blocks:
        fully_shard(block, mesh=mesh._flatten())
    fully_shard(model, mesh=mesh._flatten())
    outputs, found = outputs_and_gradients(model, batch)
    whole = {name: None if g is None else g.full_tensor() for name, g in found.items()}
    assert distance((outputs, whole), wanted) < 1e-9


def test_fsdp_over_the_flattened_mesh_averages_over_replicas() -> None:
    launch(4, beside_fsdp, timeout=300)


class Dropping(nn.Module):
    """Draws on sharded tensors, then on a replicated one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.again = False

    def block(self, x: Tensor) -> Tensor:
        rows = x + (x @ x.transpose(-1, -2)).softmax(-1) @ x
        y = nn.functional.dropout(torch.ones_like(self.first(rows)), 0.5) * rows
        y = y.transpose(1, 2)
        return y + (y @ y.transpose(-1, -2)).softmax(-1) @ y

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.second(x)
        y = checkpoint(self.block, x, use_reentrant=False) if self.again else self.block(x)
        mask = nn.functional.dropout(torch.ones_like(x), 0.5)
        return y, mask, nn.functional.dropout(torch.ones(64), 0.5)


def dropout_on_parts() -> tuple[list[float], list[float]]:
    model = Dropping().train()
    x = torch.rand(1, 8, 8, 4)
    dsp.parallelize(model, None, "auto", sample={"x": x})
    results = []
    for again in (False, False, True):
        model.again = again
        model.zero_grad()
        torch.manual_seed(3)
        y, mask, drawn = model(x)
        y.square().sum().backward()
        results.append((y.detach(), mask.detach(), model.second.weight.grad.clone()))
    for first, second, recomputed in zip(*results, strict=True):
        assert torch.equal(first, second)
        assert torch.allclose(first, recomputed, rtol=1e-5, atol=1e-6)
    mask = results[0][1][0]
    halves = mask[:4] != mask[4:] if mask.shape[0] == 8 else mask
    assert halves.any(), "two ranks drew the same numbers"
    assert 0.3 < float((mask == 0).float().mean()) < 0.7
    return mask.flatten().tolist(), drawn.tolist()


def test_dropout_is_independent_on_shards_equal_where_replicated_and_reproducible() -> None:
    first, second = launch(2, dropout_on_parts, timeout=300)
    assert first == second
