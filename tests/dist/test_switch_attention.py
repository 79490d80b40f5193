"""Fused switch + attention against one process in float64, forward and backward."""

from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist
from torch import Tensor

from perfkit import ops
from perfkit.comm.group import counters, resolve
from perfkit.comm.shards import shard_interval
from perfkit.comm.shared import SharedHeaps
from perfkit.errors import DtypeError, GradientError, RankError, SizeError, SwitchError
from tests.dist.launcher import launch
from tests.protocol.trials import leftovers


def shard(x: Tensor, dim: int) -> Tensor:
    start, stop = shard_interval(x.shape[dim], dist.get_world_size(), dist.get_rank())
    return x.narrow(dim, start, stop - start).contiguous()


def attend(q: Tensor, k: Tensor, v: Tensor, along: int, causal: bool, mask: Any = None) -> Tensor:
    """Attention of ``[B, T, S, H, D]`` along one dimension, by the definition."""
    q, k, v = (x.movedim(along, 3) for x in (q, k, v))
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        hidden = scores.masked_fill(~mask, -math.inf)
        scores = torch.where(mask.any(-1, keepdim=True), hidden, scores)
    if causal:
        length = scores.shape[-1]
        scores = scores.masked_fill(~torch.ones(length, length).bool().tril(), -math.inf)
    weights = torch.softmax(scores, -1)
    if mask is not None:
        weights = weights * mask.any(-1, keepdim=True)
    return (weights @ v).movedim(3, along)


def fused(kind: str, inputs: list[Tensor], along: int, **settings: Any) -> Tensor:
    if kind == "push":
        return ops.attention_switch(*inputs, from_dim=3 - along, to_dim=along, **settings)
    return ops.switch_attention(
        *inputs, from_dim=along, to_dim=3 - along, back=kind == "both", **settings
    )


CASES: list[dict[str, Any]] = [
    {"sizes": (4, 6)},
    {"sizes": (5, 7), "heads": 4, "kv_heads": 2, "chunks": 3},
    {"sizes": (7, 5), "causal": True, "chunks": 100},
    {"sizes": (2, 1), "dim": 8},
    {"sizes": (1, 2), "batch": 1},
    {"sizes": (70, 3), "causal": True, "dtype": torch.bfloat16},
    {"sizes": (9, 4), "masked": True},
    {"sizes": (6, 4), "value_dim": 12},
    {"sizes": (6, 4), "batch": 0},
]  # fmt: skip


def check_case(case: dict[str, Any], kind: str, along: int) -> None:
    frames, positions = case["sizes"] if along == 1 else case["sizes"][::-1]
    heads, dtype = case.get("heads", 2), case.get("dtype", torch.float32)
    kv_heads, dim = case.get("kv_heads", heads), case.get("dim", 16)
    batch, value_dim = case.get("batch", 2), case.get("value_dim", dim)
    torch.manual_seed(0)
    make = [(heads, dim), (kv_heads, dim), (kv_heads, value_dim)]
    whole = [torch.randn(batch, frames, positions, *last).to(dtype) for last in make]
    exact = [x.double().requires_grad_() for x in whole]
    mask = None
    rows = (frames, positions)[along - 1]
    if case.get("masked"):
        mask = torch.rand(rows, rows) > 0.4
        mask[2] = False
    causal = case.get("causal", False)
    reference = attend(*exact, along, causal, mask)
    weight = torch.randn_like(reference)
    expected = torch.autograd.grad((reference * weight).sum(), exact)
    arrives, leaves = along, 3 - along
    if kind == "push":
        arrives, leaves = 3 - along, along
    if kind == "both":
        leaves = along
    mine = [shard(x, arrives).requires_grad_() for x in whole]
    settings = {"sizes": (frames, positions), "mask": mask, "causal": causal}
    settings["chunks"] = case.get("chunks", 0)
    out = fused(kind, mine, along, **settings)
    exactly = {"rtol": 1e-4, "atol": 1e-5}
    close = {"rtol": 0.02, "atol": 0.05} if dtype == torch.bfloat16 else exactly
    torch.testing.assert_close(out.double(), shard(reference.detach(), leaves), **close)
    found = torch.autograd.grad((out * shard(weight, leaves).to(dtype)).sum(), mine)
    for grad, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(grad.double(), shard(wanted, arrives), **close)
    with torch.no_grad():
        again = fused(kind, mine, along, deterministic=True, **settings)
    assert torch.equal(again, out.detach()), "the order of chunks and saving change no bit"


def compare_with_one_process(shared: bool) -> None:
    torch.set_num_threads(1 + dist.get_rank() % 2)
    if not shared:
        group = resolve(dist.group.WORLD.group_name)
        group.keep(SharedHeaps, lambda: SharedHeaps(group, limit=0))
    for case in CASES:
        for kind in ("pull", "push", "both"):
            for along in (1, 2):
                check_case(case, kind, along)
    if dist.get_world_size() > 1:
        names = {count.primitive for count in counters()}
        assert names == ({"switch_attention"} if shared else {"switch"})


@pytest.mark.parametrize(("world", "shared"), [(1, True), (2, True), (3, True), (3, False)])
def test_values_and_gradients(world: int, shared: bool) -> None:
    before = set(leftovers())
    launch(world, compare_with_one_process, shared)
    assert set(leftovers()) <= before


def strided_inputs() -> None:
    packed = torch.randn(2, 4, 3, 3, 2, 8).transpose(3, 4)  # q, k, v side by side, odd strides
    q, k, v = packed.unbind(4)
    wanted = ops.switch_attention(
        q.contiguous(), k.contiguous(), v.contiguous(), from_dim=1, to_dim=2
    )
    assert torch.equal(ops.switch_attention(q, k, v, from_dim=1, to_dim=2), wanted)
    columns = torch.randn(2, 4, 3, 8, 2).transpose(3, 4)
    wanted = ops.switch_attention(*(columns.contiguous(),) * 3, from_dim=1, to_dim=2)
    assert torch.equal(ops.switch_attention(*(columns,) * 3, from_dim=1, to_dim=2), wanted)


def test_inputs_of_any_strides() -> None:
    launch(2, strided_inputs)


def bytes_moved() -> tuple[int, int, int, int]:
    q = torch.randn(1, 2, 4, 1, 8, requires_grad=True)
    out = ops.switch_attention(q, q, q, from_dim=1, to_dim=2, stage="in")
    out.sum().backward()
    forward, back = counters().total("in"), counters().total("in (backward)")
    return forward.sent, forward.received, back.sent, back.received


def test_bytes_are_counted() -> None:
    # Of 2 x 4 rows of 3 x 8 floats half leave; backward sends as much back and nothing twice.
    for sent in launch(2, bytes_moved):
        assert sent == (2 * 2 * 3 * 8 * 4,) * 4


def special_values() -> None:
    for value in (math.nan, math.inf, -math.inf):
        q, k, v = torch.randn(3, 1, 4, 2, 1, 8)
        k[0, 1, 0, 0, 3] = value
        out = ops.switch_attention(*(shard(x, 1) for x in (q, k, v)), from_dim=1, to_dim=2)
        plain = ops.attention(*(shard(x, 2).transpose(1, 2) for x in (q, k, v)))
        torch.testing.assert_close(out, plain.transpose(1, 2), equal_nan=True)


def test_nan_and_infinity_come_out_as_without_the_switch() -> None:
    launch(2, special_values)


def refusals() -> None:
    x = torch.randn(1, 2, 4, 2, 8)
    with pytest.raises(RankError, match="q has 4"):
        ops.switch_attention(x[0], x, x, from_dim=1, to_dim=2)
    with pytest.raises(RankError, match="v has 4"):
        ops.switch_attention(x, x, x[0], from_dim=1, to_dim=2)
    with pytest.raises(SwitchError, match="one is T"):
        ops.switch_attention(x, x, x, from_dim=1, to_dim=1)
    with pytest.raises(SwitchError, match="one is T"):
        ops.attention_switch(x, x, x, from_dim=1, to_dim=3)
    with pytest.raises(SwitchError, match="a balanced shard has 3"):
        ops.switch_attention(x, x, x, from_dim=1, to_dim=2, sizes=(6, 4))
    with pytest.raises(SwitchError, match="global lengths"):
        ops.switch_attention(x, x, x, from_dim=1, to_dim=2, sizes=(4,))
    with pytest.raises(SwitchError, match="chunks=-1"):
        ops.switch_attention(x, x, x, from_dim=1, to_dim=2, chunks=-1)
    with pytest.raises(SizeError, match="of k is"):
        ops.switch_attention(x, x[:, :1], x, from_dim=1, to_dim=2)
    with pytest.raises(DtypeError, match="float64"):
        ops.switch_attention(x.double(), x, x, from_dim=1, to_dim=2)
    with pytest.raises(SizeError, match="does not broadcast"):
        ops.switch_attention(x, x, x, from_dim=1, to_dim=2, mask=torch.ones(3, 3).bool())
    with pytest.raises(DtypeError, match="mask is torch.int64"):
        ops.switch_attention(x, x, x, from_dim=1, to_dim=2, mask=torch.ones(4, 4).long())
    with pytest.raises(GradientError, match="mask"):
        mask = torch.ones(4, 4, requires_grad=True)
        ops.switch_attention(x, x, x, from_dim=1, to_dim=2, mask=mask)


def test_what_does_not_fit_is_refused_before_anybody_waits() -> None:
    launch(2, refusals)
