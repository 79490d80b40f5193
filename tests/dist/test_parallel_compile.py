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
Results = tuple[list[Tensor], dict[str, Tensor | None]]


class Pair(nn.Module):
    """A spatial and a temporal ST-DiT block, with text cross-attention and rotary positions."""

    def __init__(self) -> None:
        super().__init__()
        config = Config(width=16, heads=2, text_width=6)
        self.spatial, self.temporal = Block(config, False), Block(config, True)

    def forward(self, x: Tensor, text: Tensor, time: Tensor) -> Tensor:
        return self.temporal(self.spatial(x, text, time, None), text, time, None)


def inputs(
    frames: int, positions: int, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    return {
        "x": numbers(2, frames, positions, 16).to(dtype),
        "text": numbers(2, 5, 16, seed=1).to(dtype),
        "time": numbers(2, 6, 16, seed=2).to(dtype),
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
        found = under_own_names(outputs_and_gradients(fast, inputs(*lengths)))
        assert distance(found, reference) < 1e-9, lengths
        counts.append(counter.frame_count)
    return counts


def under_own_names(found: Results) -> Results:
    """With the parameters' names in the model that was wrapped."""
    outputs, gradients = found
    own = {re.sub(r"^_orig_mod\.(model\.)?", "", name): g for name, g in gradients.items()}
    return outputs, own


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "inside"), [(2, False), (2, True), (3, False)])
def test_a_block_is_one_graph_and_a_second_shape_recompiles_once(ranks: int, inside: bool) -> None:
    for counts in launch(ranks, compiled, inside, timeout=400, group_timeout=300):
        assert counts == [1, 2, 2]


def compiled_with_kernels(kernels: str, backend: str, dtype: torch.dtype) -> list[tuple[int, int]]:
    """Per shape, the graphs compiled so far and the bytes that left inside an attention."""
    torch.manual_seed(0)
    model = Pair().to(dtype)
    shapes = [inputs(*lengths, dtype=dtype) for lengths in LENGTHS]
    wanted = [outputs_and_gradients(model, given) for given in shapes]
    dsp.parallelize(model, None, "auto", sample=shapes[0], kernels=kernels)  # type: ignore[arg-type]
    counter = CompileCounterWithBackend(backend)
    fast = torch.compile(model, backend=counter, fullgraph=True)
    counters = dsp.counters()
    found = []
    for given, reference in zip(shapes, wanted, strict=True):
        counters.reset()
        results = under_own_names(outputs_and_gradients(fast, given))
        assert distance(results, reference) < (1e-5 if dtype == torch.float32 else 1e-9)
        found.append((counter.frame_count, counters.total(primitive="switch_attention").sent))
    return found


@pytest.mark.parametrize("kernels", ["auto", pytest.param("fused", marks=pytest.mark.slow)])
def test_switches_inside_the_attention_compile_whole(kernels: str) -> None:
    for found in launch(2, compiled_with_kernels, kernels, "aot_eager", torch.float32, timeout=400):
        assert [graphs for graphs, _ in found] == [1, 2, 2]
        assert all(sent > 0 for _, sent in found)


@pytest.mark.slow
def test_inductor_runs_switches_inside_the_attention() -> None:
    answers = launch(
        2, compiled_with_kernels, "fused", "inductor", torch.float32, timeout=500,
        group_timeout=400,
    )  # fmt: skip
    for found in answers:
        assert [graphs for graphs, _ in found] == [1, 2, 2]


@pytest.mark.slow
def test_element_types_without_a_fused_kernel_compile_in_steps() -> None:
    for found in launch(2, compiled_with_kernels, "fused", "aot_eager", torch.float64, timeout=400):
        assert [sent for _, sent in found] == [0, 0, 0]
