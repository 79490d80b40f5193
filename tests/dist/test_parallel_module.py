"""A parallelized model is still the user's module: class, parameters, modes, adapters, files."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist
from torch import Tensor, nn

from perfkit import dsp
from perfkit.errors import PlanError
from tests.dist.launcher import launch
from tests.dist.parallel_models import (
    EXPLICIT,
    built,
    distance,
    numbers,
    outputs_and_gradients,
)


def other_shapes() -> None:
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
    launch(2, other_shapes, timeout=300)


class LowRank(nn.Module):
    """A linear layer with an adapter beside it, as in LoRA (arXiv 2106.09685)."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, rank, bias=False, dtype=base.weight.dtype)
        self.up = nn.Linear(rank, base.out_features, bias=False, dtype=base.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def adapt(model: nn.Module) -> None:
    """Freeze the model and put an adapter beside every query projection."""
    torch.manual_seed(3)
    model.requires_grad_(False)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if name in ("qkv", "query", "to_q") and isinstance(child, nn.Linear):
                setattr(module, name, LowRank(child, 2))


def copied() -> None:
    """A copy, as for averaged weights, is sharded too, and is its own model."""
    model, inputs = built("stdit", 5, 9)
    plain = copy.deepcopy(model)
    signature = inspect.signature(model.forward)
    dsp.parallelize(model, None, EXPLICIT["stdit"], sample=inputs)
    assert inspect.signature(model.forward) == signature
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.25)
    changed = copy.deepcopy(plain)
    changed.load_state_dict(other.state_dict())
    for mine, reference in ((other, changed), (model, plain)):
        wanted = outputs_and_gradients(reference, inputs)
        assert distance(outputs_and_gradients(mine, inputs), wanted) < 1e-9
    dsp.restore(model)
    assert "forward" not in vars(model)
    counters = dsp.counters()
    counters.reset()
    wanted = outputs_and_gradients(changed, inputs)
    assert distance(outputs_and_gradients(other, inputs), wanted) < 1e-9
    assert sum(c.sent for c in counters)


def test_copies_are_models_of_their_own() -> None:
    launch(2, copied, timeout=300)


def adapted() -> list[int]:
    """Adapters that come after the plan; returns bytes sent by steps before and after them."""
    model, inputs = built("stdit", 5, 9)
    plain = copy.deepcopy(model)
    dsp.parallelize(model, None, "auto", sample=inputs)
    counters = dsp.counters()
    sent = []
    for step in range(4):
        if step == 1:
            adapt(model)
            adapt(plain)
        counters.reset()
        wanted = outputs_and_gradients(plain, inputs)
        assert distance(outputs_and_gradients(model, inputs), wanted) < 1e-9, step
        sent.append(sum(c.sent for c in counters if not c.stage.endswith("(backward)")))
    return sent


def test_adapters_added_later_are_trained_and_planned_with() -> None:
    for sent in launch(2, adapted, timeout=300):
        assert sent[2] == sent[3] == sent[0], "not planned again after the first call that strayed"


def modes_and_files(folder: str) -> None:
    model, inputs = built("latte", 5, 9)
    kind, config, keys = type(model), dict(model.config), list(model.state_dict())
    children = [name for name, _ in model.named_modules()]
    assert dsp.parallelize(model, None, EXPLICIT["latte"], sample=inputs) is model
    assert type(model) is kind and dict(model.config) == config
    assert list(model.state_dict()) == keys
    assert [name for name, _ in model.named_modules()] == children
    model.train()
    assert all(m.training for m in model.modules())
    model.enable_gradient_checkpointing()
    assert model.is_gradient_checkpointing
    model.disable_gradient_checkpointing()
    model.eval()
    assert not any(m.training for m in model.modules())
    output = model(**{**inputs, "return_dict": True})
    assert isinstance(output.sample, Tensor)  # the model's own class of outputs, plain tensors
    path = Path(folder) / f"{dist.get_rank()}"
    model.save_pretrained(path)
    again = kind.from_pretrained(path, torch_dtype=torch.float64).eval()
    reference = again(**inputs)[0]
    assert (output.sample - reference).abs().max() < 1e-9 * reference.abs().max()
    state = {name: x + 0.01 for name, x in again.state_dict().items()}
    for each in (model, again):
        each.load_state_dict(state)
    wanted = outputs_and_gradients(again, inputs)
    assert distance(outputs_and_gradients(model, inputs), wanted) < 1e-9


def test_class_config_modes_and_files_of_a_diffusers_model(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    launch(2, modes_and_files, str(tmp_path), timeout=300)
