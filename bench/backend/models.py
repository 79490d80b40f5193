"""Whole models with random weights, from transformers and diffusers where they are installed."""

from __future__ import annotations

import copy
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.backend.programs import Prepared

LAYERS = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
WORDS, LENGTH, BATCH = 1000, 128, 4


@dataclass(frozen=True)
class Model:
    """A model class of a package, its configuration, and what it is called with."""

    package: str
    name: str
    configuration: Mapping[str, Any]
    inputs: Callable[[torch.Generator, bool], Mapping[str, Tensor]]
    trains: bool = True

    def prepare(self, generator: torch.Generator, tiny: bool, dtype: torch.dtype) -> Prepared:
        """The model in eval mode (no dropout), and in float64 with the same weights."""
        torch.manual_seed(0)
        package = importlib.import_module(self.package)
        kind = getattr(package, self.name)
        settings = dict(self.configuration)
        if self.package == "transformers":
            config = kind.config_class(**settings)
            config.use_cache = False
            model = kind(config)
        else:
            model = kind(**settings)
        model = model.eval().to(dtype)
        wide = copy.deepcopy(model).double()
        inputs = _floats(self.inputs(generator, tiny), dtype)
        doubled = _floats(inputs, torch.float64)
        used = [p for p in model.parameters() if p.requires_grad]
        return Prepared(
            _First(model), tuple(inputs.values()), used,
            _First(wide), tuple(doubled.values()),
            [p for p in wide.parameters() if p.requires_grad],
            tuple(inputs),
        )  # fmt: skip


def _floats(inputs: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {n: t.to(dtype) if t.is_floating_point() else t for n, t in inputs.items()}


class _First(nn.Module):
    """A model whose only result is its first one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Tensor, names: tuple[str, ...] = ()) -> Tensor:
        found = self.model(**dict(zip(names, args, strict=True)), return_dict=False)
        first: Tensor = found[0]
        return first


def _words(*names: str) -> Callable[[torch.Generator, bool], Mapping[str, Tensor]]:
    def make(generator: torch.Generator, tiny: bool) -> Mapping[str, Tensor]:
        shape = (2, 16) if tiny else (BATCH, LENGTH)
        return {n: torch.randint(0, WORDS, shape, generator=generator) for n in names}

    return make


def _noise(**shapes: tuple[int, ...]) -> Callable[[torch.Generator, bool], Mapping[str, Tensor]]:
    def make(generator: torch.Generator, tiny: bool) -> Mapping[str, Tensor]:
        found = {n: torch.randn(*s, generator=generator) for n, s in shapes.items()}
        if "timestep" in found:
            found["timestep"] = torch.full(shapes["timestep"], 7)
        return found

    return make


def _speech(generator: torch.Generator, tiny: bool) -> Mapping[str, Tensor]:
    return {
        "input_features": torch.randn(1, 80, 200, generator=generator),
        "decoder_input_ids": torch.randint(0, WORDS, (1, 16), generator=generator),
    }


_ALL: Mapping[str, Model] = {
    "bert": Model(
        "transformers", "BertModel",
        {**LAYERS, "vocab_size": WORDS, "intermediate_size": 1024}, _words("input_ids"),
    ),
    "gpt2": Model(
        "transformers", "GPT2Model",
        {"vocab_size": WORDS, "n_embd": 256, "n_layer": 4, "n_head": 4}, _words("input_ids"),
    ),
    "llama": Model(
        "transformers", "LlamaModel",
        {**LAYERS, "vocab_size": WORDS, "intermediate_size": 688}, _words("input_ids"),
    ),
    "t5": Model(
        "transformers", "T5Model",
        {"vocab_size": WORDS, "d_model": 256, "num_layers": 3, "num_heads": 4, "d_ff": 512},
        _words("input_ids", "decoder_input_ids"),
    ),
    "vit": Model(
        "transformers", "ViTModel",
        {**LAYERS, "intermediate_size": 1024, "image_size": 96, "patch_size": 8},
        _noise(pixel_values=(4, 3, 96, 96)),
    ),
    "whisper": Model(
        "transformers", "WhisperModel",
        {"vocab_size": WORDS, "d_model": 128, "encoder_layers": 2, "decoder_layers": 2,
         "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_source_positions": 100,
         "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
        _speech,
    ),
    "unet": Model(
        "diffusers", "UNet2DModel",
        {"sample_size": 32, "block_out_channels": (32, 64), "layers_per_block": 1,
         "norm_num_groups": 8, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
         "up_block_types": ("AttnUpBlock2D", "UpBlock2D")},
        _noise(sample=(2, 3, 32, 32), timestep=(2,)),
    ),
    "latte": Model(
        "diffusers", "LatteTransformer3DModel",
        {"num_attention_heads": 4, "attention_head_dim": 32, "in_channels": 4, "out_channels": 4,
         "num_layers": 2, "cross_attention_dim": 128, "caption_channels": 64, "sample_size": 16,
         "patch_size": 2, "norm_type": "ada_norm_single", "video_length": 8,
         "attention_bias": True, "activation_fn": "gelu-approximate",
         "norm_elementwise_affine": False, "norm_eps": 1e-6, "num_embeds_ada_norm": 1000},
        _noise(hidden_states=(2, 4, 8, 16, 16), timestep=(2,), encoder_hidden_states=(2, 12, 64)),
    ),
}  # fmt: skip

MODELS: Mapping[str, Model] = {
    name: model for name, model in _ALL.items() if importlib.util.find_spec(model.package)
}
"""The models whose packages are installed."""

__all__ = ["MODELS", "Model"]
