"""Ring attention on real processes: values, gradients and bytes against one process."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.functional import scaled_dot_product_attention

from perfkit import dsp
from perfkit.dsp.peers import blocks
from perfkit.dsp.peers.ring import ring_attention
from perfkit.dsp.placement import shard_length, shard_lengths
from perfkit.dsp.simulate import pair_volume
from perfkit.errors import MismatchError, SwitchError
from tests.dist.launcher import launch
from tests.dist.test_peers import close, shard


def against_one_process() -> None:
    torch.manual_seed(0)
    for lead, heads, positions, dim in [
        ((2,), 3, 8, 4),
        ((), 2, 7, 5),
        ((2, 3), 1, 17, 4),
        ((1,), 2, 51, 8),
        ((2,), 2, 3, 4),
        ((2,), 2, 1, 4),
    ]:
        for causal in (False, True):
            shape = (*lead, heads, positions, dim)
            whole = [torch.randn(shape, dtype=torch.float64) for _ in range(3)]
            weight = torch.randn(shape, dtype=torch.float64)
            mine = [shard(x, -2).requires_grad_() for x in whole]
            for x in whole:
                x.requires_grad_()
            reference = scaled_dot_product_attention(*whole, is_causal=causal)
            (reference * weight).sum().backward()
            y = ring_attention(*mine, size=positions, causal=causal)
            close(y.detach(), shard(reference.detach(), -2))
            (y * shard(weight, -2)).sum().backward()
            for found, wanted in zip(mine, whole, strict=True):
                close(found.grad, shard(wanted.grad, -2))


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_values_and_gradients_are_those_of_one_process(world: int) -> None:
    launch(world, against_one_process)


def strided_and_short_types() -> None:
    """Heads before positions by a transpose, as models have them; bf16 to its own precision."""
    torch.manual_seed(0)
    x = torch.randn(2, 9, 4, 3 * 8, dtype=torch.float64)
    for dtype, tolerance in [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)]:
        mine = shard(x, 1).to(dtype).requires_grad_()
        whole = x.clone().requires_grad_()
        y = ring_attention(*mine.transpose(1, 2).chunk(3, -1), size=9)
        reference = scaled_dot_product_attention(*whole.transpose(1, 2).chunk(3, -1))
        assert y.dtype == dtype
        assert (y - shard(reference, 2)).abs().max() < tolerance
        y.double().square().sum().backward()
        reference.square().sum().backward()
        assert mine.grad is not None and mine.grad.dtype == dtype
        assert (mine.grad - shard(whole.grad, 1)).abs().max() < 4 * tolerance
    turned = [shard(torch.randn(2, 9, 3, 4), -2).mT.contiguous().mT for _ in range(3)]
    plain = ring_attention(*(x.contiguous() for x in turned), size=3)
    assert torch.equal(ring_attention(*turned, size=3), plain)


def test_any_strides_and_types() -> None:
    launch(3, strided_and_short_types)


def counted(positions: int) -> None:
    ranks, rank = dist.get_world_size(), dist.get_rank()
    lengths = shard_lengths(positions, ranks)
    counters = dsp.counters()
    row = 2 * 3 * 4  # batch, heads, dim
    for dtype, size, wide in ((torch.float64, 8, 8), (torch.bfloat16, 2, 4)):
        for causal in (False, True):
            counters.reset()
            q = torch.randn(2, 3, lengths[rank], 4).to(dtype).requires_grad_()
            ring_attention(q, q, q, size=positions, causal=causal, stage="a").sum().backward()
            # A rank passes on its own block and those of the ranks before, all but the next's.
            passed = [lengths[(rank - hop) % ranks] for hop in range(ranks - 1)]
            if causal:
                passed = passed[: rank + 1] if rank + 1 < ranks else []
            forward = counters.total("a")
            assert forward.sent == 2 * row * size * sum(passed)
            home = [lengths[(rank - hop) % ranks] for hop in range(1, ranks)]
            backward = counters.total("a (backward)")
            assert backward.sent == 2 * row * (size * sum(passed) + wide * sum(home))
            if positions % ranks == 0 and not causal and size == wide:
                total = float(row * size * positions)
                assert forward.sent == pair_volume("ring", total, ranks)
                assert backward.sent == 2 * forward.sent
            else:
                assert forward.sent <= 2 * row * size * positions


@pytest.mark.parametrize(("world", "positions"), [(2, 8), (3, 9), (4, 16), (3, 17), (4, 3)])
def test_bytes_are_the_closed_form(world: int, positions: int) -> None:
    launch(world, counted, positions)


def compiled() -> int:
    """Recompilations over three lengths, with gradients."""
    counter = CompileCounterWithBackend("aot_eager")

    def step(q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
        return ring_attention(q * 2, k, v, size=size, causal=True).sin()

    fast = torch.compile(step, backend=counter, fullgraph=True)
    for size in (8, 11, 17):
        whole = torch.randn(3, 2, 2, size, 4, dtype=torch.float64)
        results = []
        for run in (step, fast):
            mine = [shard(x, -2).requires_grad_() for x in whole]
            y = run(*mine, size)
            y.square().sum().backward()
            results.append([y.detach(), *(x.grad for x in mine)])
        for eager, found in zip(*results, strict=True):
            assert torch.allclose(eager, found, atol=1e-12)
    return counter.frame_count


def test_it_compiles_whole_and_a_second_length_recompiles_at_most_once() -> None:
    assert max(launch(2, compiled, timeout=240)) <= 2


def checked_operator() -> None:
    name = dist.group.WORLD.group_name
    q, k, v = (shard(torch.randn(2, 2, 5, 4), -2).requires_grad_() for _ in range(3))
    torch.library.opcheck(
        torch.ops.perfkit_dsp.ring_attention.default, (q, k, v, name, 5, False, 0.5, "")
    )


def test_the_operator_passes_torchs_own_checks() -> None:
    launch(2, checked_operator, timeout=120)


def refused() -> str:
    x = torch.ones(2, 3, 4)
    for q, k, v, words in (
        (x[0], x, x, "need dimensions"),
        (x, x[:1], x, "repeat the heads"),
        (x, x[:, :2], x[:, :2], "differ in more"),
    ):
        with pytest.raises(SwitchError, match=words):
            ring_attention(q, k, v, size=6)
    with pytest.raises(MismatchError if dist.get_rank() else SwitchError) as caught:
        ring_attention(x, x, x, size=6 if dist.get_rank() else 9, stage="blocks.2")
    return str(caught.value)


def test_what_does_not_fit_is_refused() -> None:
    mine, other = launch(
        2, refused, environment={"PERFKIT_DSP_CHECK": "1", "PERFKIT_DSP_TIMEOUT": "5"}
    )
    assert "stage 'blocks.2' of (2, 9, 4) float32" in mine and "holds 3 of the 9 positions" in mine
    assert "rank 0: ring_attention in stage 'blocks.2'" in other


# -- blocks, in one process -------------------------------------------------------------------


@pytest.mark.parametrize("value_dim", [4, 6])
@pytest.mark.parametrize("cuts", [(9,), (4, 5), (1, 7, 1), (0, 9, 0)])
def test_blocks_merge_to_whole_attention(cuts: tuple[int, ...], value_dim: int) -> None:
    """Equal widths take torch's flash kernel, others this package's own formulas."""
    torch.manual_seed(1)
    q, k = (torch.randn(2, 3, 9, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    v = torch.randn(2, 3, 9, value_dim, dtype=torch.float64, requires_grad=True)
    reference = scaled_dot_product_attention(q, k, v, scale=0.7)
    grad = torch.randn_like(reference)
    wanted = torch.autograd.grad(reference, (q, k, v), grad)
    parts = list(zip(k.detach().split(cuts, 2), v.detach().split(cuts, 2), strict=True))
    merged = blocks.Merged(q.detach(), value_dim, 0.7)
    for part in parts:
        merged.add(*part)
    out, lse = merged.result()
    assert (out - reference).abs().max() < 1e-13
    found = [
        blocks.attend_backward(grad, q.detach(), *part, out, lse, 0.7, False) for part in parts
    ]
    assert (sum(f[0] for f in found) - wanted[0]).abs().max() < 1e-13
    for position in (1, 2):
        assert (torch.cat([f[position] for f in found], 2) - wanted[position]).abs().max() < 1e-13


def test_scores_far_apart_do_not_overflow() -> None:
    q = torch.full((1, 1, 2, 4), 30.0)
    k = torch.cat([torch.full((1, 1, 1, 4), s) for s in (-30.0, 30.0, -30.0)], 2)
    v = torch.arange(3.0).view(1, 1, 3, 1).expand(1, 1, 3, 4)
    merged = blocks.Merged(q, 4, 1.0)
    for at in range(3):
        merged.add(k[:, :, at : at + 1], v[:, :, at : at + 1])
    assert torch.equal(merged.result()[0], torch.ones(1, 1, 2, 4))


def test_no_key_at_all_is_zero() -> None:
    out, lse = blocks.Merged(torch.ones(1, 2, 4), 3, 1.0).result()
    assert torch.equal(out, torch.zeros(1, 2, 3)) and bool((lse == -torch.inf).all())
    assert shard_length(1, 4, 3) == 0
