"""Tiny models with random weights, and what to call them with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from bench.models.axial import AxialTransformer
from bench.models.evoformer import Evoformer
from bench.models.stdit import Config, STDiT
from perfkit import dsp


def numbers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def latte(frames: int, positions: int, depth: int = 2) -> tuple[nn.Module, dict[str, Any]]:
    """Sizes: ``positions`` is rows times 3 columns of patches."""
    from diffusers import LatteTransformer3DModel

    model = LatteTransformer3DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=4, out_channels=4,
        num_layers=depth, cross_attention_dim=8, caption_channels=6, sample_size=8, patch_size=2,
        norm_type="ada_norm_single", video_length=frames, attention_bias=True,
        activation_fn="gelu-approximate", norm_elementwise_affine=False, norm_eps=1e-6,
        num_embeds_ada_norm=1000,
    )  # fmt: skip
    rows = positions // 3
    return model.double(), {
        "hidden_states": numbers(2, 4, frames, 2 * rows, 6),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": numbers(2, 5, 6, seed=1),
        "return_dict": False,
    }


def timesformer(frames: int, positions: int) -> tuple[nn.Module, dict[str, Any]]:
    from transformers import TimesformerConfig, TimesformerModel

    side = int(positions**0.5)
    config = TimesformerConfig(
        image_size=2 * side, patch_size=2, num_channels=3, num_frames=frames, hidden_size=8,
        num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
    )  # fmt: skip
    return TimesformerModel(config).double(), {
        "pixel_values": numbers(2, frames, 3, 2 * side, 2 * side),
        "return_dict": False,
    }


def stdit(frames: int, positions: int) -> tuple[nn.Module, dict[str, Any]]:
    model = STDiT(Config(width=16, heads=2, depth=2, text_width=6)).double()
    return model, {
        "x": numbers(2, 4, frames, positions // 3 * 2, 6),
        "timestep": torch.tensor([3, 500]),
        "text": numbers(2, 5, 6, seed=1),
        "mask": torch.tensor([[True] * 5, [True] * 3 + [False] * 2]),
    }


def axial(rows: int, columns: int) -> tuple[nn.Module, dict[str, Any]]:
    return AxialTransformer().double(), {"x": numbers(2, rows, columns, 16)}


def evoformer(sequences: int, residues: int) -> tuple[nn.Module, dict[str, Any]]:
    model = Evoformer(pair_width=16).double()
    return model, {
        "m": numbers(1, sequences, residues, 8),
        "z": numbers(1, residues, residues, 16, seed=1),
    }


MODELS: Mapping[str, Callable[..., tuple[nn.Module, dict[str, Any]]]] = {
    "latte": latte,
    "timesformer": timesformer,
    "stdit": stdit,
    "axial": axial,
    "evoformer": evoformer,
}

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
    "evoformer": {
        "blocks.*.rows": dsp.Mixes("residues"),
        "blocks.*.columns": dsp.Mixes("sequences"),
        "blocks.*.starting": dsp.Mixes("j"),
        "blocks.*.ending": dsp.Mixes("i"),
    },
}


def installed(name: str) -> bool:
    """Whether the library that a model comes from is there."""
    return name not in NEEDS or find_spec(NEEDS[name]) is not None


def built(
    name: str, *sizes: int, dtype: torch.dtype = torch.float64
) -> tuple[nn.Module, dict[str, Any]]:
    """A model, the same on every rank, with weights that leave no part of it idle."""
    torch.manual_seed(0)
    model, inputs = MODELS[name](*sizes)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn(p.shape, dtype=p.dtype, generator=generator))
    given = {
        key: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x
        for key, x in inputs.items()
    }
    return model.to(dtype).eval(), given


def tensors(x: Any) -> list[Tensor]:
    """The floating-point tensors of a model's output."""
    if isinstance(x, Tensor):
        return [x] if x.is_floating_point() else []
    if isinstance(x, Mapping):
        x = list(x.values())
    return [t for y in x for t in tensors(y)] if isinstance(x, (list, tuple)) else []


def outputs_and_gradients(
    model: nn.Module, inputs: Mapping[str, Any]
) -> tuple[list[Tensor], dict[str, Tensor | None]]:
    """The outputs of a call and the gradients of a fixed sum over them."""
    model.zero_grad(set_to_none=True)
    found = tensors(model(**inputs))
    loss = sum((y * numbers(*y.shape, seed=5).to(y)).sum() for y in found)
    assert isinstance(loss, Tensor)
    loss.backward()
    return [y.detach() for y in found], {n: p.grad for n, p in model.named_parameters()}


def distance(
    found: tuple[list[Tensor], dict[str, Tensor | None]],
    wanted: tuple[list[Tensor], dict[str, Tensor | None]],
) -> float:
    """The largest error, relative to max(|reference|, RMS of all gradients)."""
    worst = 0.0
    for y, reference in zip(found[0], wanted[0], strict=True):
        assert y.shape == reference.shape
        worst = max(worst, float((y - reference).abs().max() / reference.abs().max()))
    every = torch.cat([g.flatten() for g in wanted[1].values() if g is not None])
    rms = float(every.square().mean().sqrt())
    for name, reference in wanted[1].items():
        gradient = found[1][name]
        assert (gradient is None) == (reference is None), name
        if gradient is not None and reference is not None:
            scale = max(float(reference.abs().max()), rms)
            worst = max(worst, float((gradient - reference).abs().max()) / scale)
    return worst
