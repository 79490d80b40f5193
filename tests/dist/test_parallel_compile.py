"""torch.compile traces a parallelized block without a graph break."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from bench.models.stdit import Block, Config
from perfkit import dsp
from tests.dist.launcher import launch
from tests.dist.parallel_models import distance, numbers, outputs_and_gradients

LENGTHS = [(5, 9), (8, 11), (17, 51)]


class Pair(nn.Module):
    """A spatial and a temporal ST-DiT block, with text cross-attention and rotary positions."""

    def __init__(self) -> None:
        super().__init__()
        config = Config(width=16, heads=2, text_width=6)
        self.spatial, self.temporal = Block(config, False), Block(config, True)

    def forward(self, x: Tensor, text: Tensor, time: Tensor) -> Tensor:
        return self.temporal(self.spatial(x, text, time, None), text, time, None)


def inputs(frames: int, positions: int) -> dict[str, Tensor]:
    return {
        "x": numbers(2, frames, positions, 16),
        "text": numbers(2, 5, 16, seed=1),
        "time": numbers(2, 6, 16, seed=2),
    }


class Holder(nn.Module):
    """Calls the parallelized model, as a training script's own module does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **batch: Tensor) -> Tensor:
        output: Tensor = self.model(**batch)
        return output


def compiled(inside: bool) -> list[int]:
    """Compares with one process at several shapes; returns the graphs compiled after each.

    ``inside``: compile a module that calls the parallelized one, not that one itself.
    """
    torch.manual_seed(0)
    model = Pair().double()
    wanted = [outputs_and_gradients(model, inputs(*lengths)) for lengths in LENGTHS]
    dsp.parallelize(model, None, "auto", sample=inputs(*LENGTHS[0]))
    counter = CompileCounterWithBackend("aot_eager")
    fast = torch.compile(Holder(model) if inside else model, backend=counter, fullgraph=True)
    counts = []
    for lengths, reference in zip(LENGTHS, wanted, strict=True):
        outputs, found = outputs_and_gradients(fast, inputs(*lengths))
        named = {re.sub(r"^_orig_mod\.(model\.)?", "", name): g for name, g in found.items()}
        assert distance((outputs, named), reference) < 1e-9, lengths
        counts.append(counter.frame_count)
    return counts


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "inside"), [(2, False), (2, True), (3, False)])
def test_a_block_is_one_graph_and_a_second_shape_recompiles_once(ranks: int, inside: bool) -> None:
    for counts in launch(ranks, compiled, inside, timeout=400, group_timeout=300):
        assert counts == [1, 2, 2]
