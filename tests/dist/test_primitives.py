"""split, switch, gather, reduce_scatter on real processes against one-process references."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from perfkit import dsp
from perfkit.dsp.placement import shard_interval, shard_length
from perfkit.errors import CollectiveError, GroupError, SwitchError
from tests.dist.launcher import RankFailed, launch

DTYPES = ["float64", "float32", "bfloat16", "float16", "int64", "int8", "uint8", "bool"]
DTYPES += ["complex64", "complex128"]


def whole(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Tensor:
    """The same tensor on every rank; small integers, so that every sum is exact."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-3, 4, shape, generator=generator)
    if dtype.startswith("complex"):
        return torch.complex(values.double(), values.double() + 1).to(getattr(torch, dtype))
    return values.to(getattr(torch, dtype))


def shard(x: Tensor, dim: int, rank: int | None = None) -> Tensor:
    rank = dist.get_rank() if rank is None else rank
    start, stop = shard_interval(x.shape[dim], dist.get_world_size(), rank)
    return x.narrow(dim, start, stop - start).contiguous()


def restride(x: Tensor, order: str) -> Tensor:
    """The same values with other strides."""
    if order == "transposed":
        return x.permute(*reversed(range(x.ndim))).contiguous().permute(*reversed(range(x.ndim)))
    if order == "sliced":
        wide = x.new_zeros([2 * n for n in x.shape])
        wide[tuple(slice(0, 2 * n, 2) for n in x.shape)] = x
        return wide[tuple(slice(0, 2 * n, 2) for n in x.shape)]
    return x


@dataclass(frozen=True)
class Case:
    shape: tuple[int, ...]
    source: int
    target: int
    dtype: str
    order: str
    overlapped: bool

    def differentiable(self) -> bool:
        return getattr(torch, self.dtype).is_floating_point or self.dtype.startswith("complex")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.lists(st.integers(0, 7), min_size=2, max_size=4)))
    source = draw(st.integers(0, len(shape) - 1))
    target = draw(st.integers(0, len(shape) - 1).filter(lambda d: d != source))
    order = draw(st.sampled_from(["plain", "transposed", "sliced"]))
    return Case(shape, source, target, draw(st.sampled_from(DTYPES)), order, draw(st.booleans()))


def done(result: Any) -> Tensor:
    return result.wait() if isinstance(result, dsp.Pending) else result


def expect(name: str, got: Tensor, wanted: Tensor, case: Case) -> None:
    assert got.shape == wanted.shape, (name, case, got.shape, wanted.shape)
    assert got.dtype == wanted.dtype, (name, case)
    assert torch.equal(got, wanted), (name, case)
    if dist.get_world_size() > 1 and not name.startswith("gradient"):
        assert got.is_contiguous(), (name, case)


def check_cases(batch: list[Case]) -> None:
    for case in batch:
        check_switch(case)
        check_gather_and_split(case)
        check_reduce_scatter(case)


def check_switch(case: Case) -> None:
    x, weight = whole(case.shape, case.dtype), whole(case.shape, case.dtype, 1)
    mine = restride(shard(x, case.source), case.order)
    mine.requires_grad_(case.differentiable())
    y = done(
        dsp.switch(
            mine,
            from_dim=case.source,
            to_dim=case.target - len(case.shape),
            size=case.shape[case.source],
            async_op=case.overlapped,
        )
    )
    expect("switch", y.detach(), shard(x, case.target), case)
    if mine.requires_grad:
        y.backward(restride(shard(weight, case.target), case.order))
        assert mine.grad is not None
        expect("gradient of switch", mine.grad, shard(weight, case.source), case)


def check_gather_and_split(case: Case) -> None:
    x, weight = whole(case.shape, case.dtype), whole(case.shape, case.dtype, 1)
    ranks = dist.get_world_size()
    for grad in ("replicated", "partial"):
        mine = restride(shard(x, case.source), case.order)
        mine.requires_grad_(case.differentiable())
        options = {"dim": case.source, "size": case.shape[case.source], "grad": grad}
        y = done(dsp.gather(mine, **options, async_op=case.overlapped))
        expect("gather", y.detach(), x, case)
        if mine.requires_grad:
            y.backward(restride(weight, case.order))
            factor = ranks if grad == "partial" else 1
            assert mine.grad is not None
            expect("gradient of gather", mine.grad, shard(weight, case.source) * factor, case)

        full = restride(x, case.order).detach().requires_grad_(case.differentiable())
        part = dsp.split(full, dim=case.source, grad=grad)
        if grad == "replicated":
            expect("split", part.detach(), shard(x, case.source), case)
        assert torch.equal(part, shard(x, case.source))
        if full.requires_grad:
            part.backward(shard(weight, case.source))
            wanted = weight
            if grad == "partial":
                start, stop = shard_interval(x.shape[case.source], ranks, dist.get_rank())
                wanted = torch.zeros_like(weight)
                wanted.narrow(case.source, start, stop - start).copy_(
                    weight.narrow(case.source, start, stop - start)
                )
            assert full.grad is not None
            expect("gradient of split", full.grad, wanted, case)


def check_reduce_scatter(case: Case) -> None:
    if case.dtype == "bool":
        return
    ranks = dist.get_world_size()
    parts = [whole(case.shape, case.dtype, 7 + r) for r in range(ranks)]
    mine = restride(parts[dist.get_rank()], case.order).detach()
    mine.requires_grad_(case.differentiable())
    y = done(dsp.reduce_scatter(mine, dim=case.source, async_op=case.overlapped))
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    expect("reduce_scatter", y.detach(), shard(total, case.source), case)
    if mine.requires_grad:
        weight = whole(case.shape, case.dtype, 1)
        y.backward(shard(weight, case.source))
        assert mine.grad is not None
        expect("gradient of reduce_scatter", mine.grad, weight, case)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@given(batch=st.lists(cases(), min_size=30, max_size=30))
@settings(max_examples=2, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_every_primitive_moves_values_and_gradients(world: int, batch: list[Case]) -> None:
    launch(world, check_cases, batch)


def test_eight_ranks_with_more_ranks_than_indices() -> None:
    shapes = [(2, 9, 3), (1, 17, 51), (9, 1, 8), (3, 8, 16), (0, 5, 5)]
    batch = [
        Case(shape, source, target, dtype, "plain", overlapped)
        for shape in shapes
        for source, target in ((1, 2), (2, 0))
        for dtype, overlapped in (("float32", True), ("bfloat16", False))
    ]
    launch(8, check_cases, batch)


# -- gradients, numerically and twice --------------------------------------------------------


def numeric_gradients() -> None:
    def through(x: Tensor) -> Tensor:
        t = dsp.split(x, dim=1)
        s = dsp.switch(torch.sin(t), from_dim=1, to_dim=2, size=x.shape[1])
        back = dsp.switch(s * s, from_dim=2, to_dim=1, size=x.shape[2], async_op=True).wait()
        return dsp.gather(back * t, dim=1, size=x.shape[1])

    torch.manual_seed(3)  # one seed: ranks must perturb alike, in step
    x = torch.randn(1, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(through, (x,))
    assert torch.autograd.gradgradcheck(through, (x,))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_gradcheck_and_gradgradcheck_in_fp64(world: int) -> None:
    launch(world, numeric_gradients)


def numeric_gradients_of_any_two_dimensions() -> None:
    """Each primitive by itself between replicated ends, so that all ranks perturb alike."""
    torch.manual_seed(4)
    ranks, rank = dist.get_world_size(), dist.get_rank()
    sizes = (2, 3, 1, 4)
    base = torch.randn(sizes, dtype=torch.float64)
    weights = torch.randn(ranks, *base.shape, dtype=torch.float64)
    for source, target in permutations(range(4), 2):

        def switched(
            x: Tensor, overlapped: bool, source: int = source, target: int = target
        ) -> Tensor:
            part = dsp.split(x, dim=source)
            part = part.transpose(0, 3).contiguous().transpose(0, 3)  # strides of another order
            y = dsp.switch(
                part, from_dim=source, to_dim=target, size=sizes[source], async_op=overlapped
            )
            return dsp.gather(done(y).sin(), dim=target, size=sizes[target])

        x = base.clone().requires_grad_()
        function = partial(switched, overlapped=source < target)
        assert (function(x) - x.sin()).abs().max() < 1e-10
        assert torch.autograd.gradcheck(function, (x,), atol=1e-8)
    for dim in range(4):

        def summed(x: Tensor, overlapped: bool, dim: int = dim) -> Tensor:
            # Each rank multiplies by weights of its own: a partial gradient, and a true sum.
            own = dsp.gather(dsp.split(x, dim=dim), dim=dim, size=sizes[dim], grad="partial")
            part = done(dsp.reduce_scatter(own * weights[rank], dim=dim, async_op=overlapped))
            return dsp.gather(part.sin(), dim=dim, size=sizes[dim], async_op=False)

        for overlapped in (False, True):
            x = base.clone().requires_grad_()
            function = partial(summed, overlapped=overlapped)
            assert (function(x) - (x * weights.sum(0)).sin()).abs().max() < 1e-10
            assert torch.autograd.gradcheck(function, (x,), atol=1e-8)


@pytest.mark.parametrize("world", [2, 3])
def test_gradcheck_of_any_two_dimensions_and_strides(world: int) -> None:
    launch(world, numeric_gradients_of_any_two_dimensions)


def losses_of_both_kinds() -> None:
    """A replicated loss, a loss for each rank, and a loss on shards: one process's gradient."""
    torch.manual_seed(5)
    ranks, rank = dist.get_world_size(), dist.get_rank()
    x = torch.randn(2, 7, 5, dtype=torch.float64)
    weights = torch.randn(ranks, 2, 7, 5, dtype=torch.float64)

    def loss_of(y: Tensor, weight: Tensor) -> Tensor:
        return (torch.tanh(y) * weight).sum()

    def gradient(build: Any, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        build(x).backward()
        assert x.grad is not None
        return x.grad

    def middle(part: Tensor) -> Tensor:
        return dsp.switch(part.exp(), from_dim=1, to_dim=2, size=7)

    replicated = gradient(
        lambda x: loss_of(dsp.gather(middle(dsp.split(x, dim=1)), dim=2, size=5), weights[0]), x
    )
    reference = gradient(lambda x: loss_of(x.exp(), weights[0]), x)
    assert (replicated - reference).abs().max() < 1e-10

    own = gradient(
        lambda x: loss_of(
            dsp.gather(middle(dsp.split(x, dim=1)), dim=2, size=5, grad="partial"), weights[rank]
        ),
        x,
    )
    reference = gradient(lambda x: loss_of(x.exp(), weights.sum(0)), x)
    assert (own - reference).abs().max() < 1e-10

    on_shards = gradient(lambda x: loss_of(middle(dsp.split(x, dim=1)), shard(weights[0], 2)), x)
    reference = gradient(lambda x: loss_of(x.exp(), weights[0]), x)
    assert (on_shards - reference).abs().max() < 1e-10

    summed = gradient(
        lambda x: loss_of(middle(dsp.split(x, dim=1, grad="partial")), shard(weights[0], 2)), x
    )
    dist.all_reduce(summed)
    assert (summed - reference).abs().max() < 1e-10


@pytest.mark.parametrize("world", [2, 3, 4])
def test_replicated_partial_and_sharded_losses_are_right(world: int) -> None:
    launch(world, losses_of_both_kinds)


# -- groups ----------------------------------------------------------------------------------


def groups_of_two_axes() -> None:
    mesh = dist.init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "sp"))
    x = torch.arange(2.0 * 5 * 3).view(2, 5, 3) + 100 * (dist.get_rank() // 2)
    place = dist.get_rank() % 2
    start, stop = shard_interval(5, 2, place)
    y = dsp.switch(x[:, start:stop], mesh["sp"], from_dim=1, to_dim=2, size=5)
    low, high = shard_interval(3, 2, place)
    assert torch.equal(y, x[:, :, low:high])
    named = dsp.switch(
        x[:, start:stop], mesh.get_group("sp").group_name, from_dim=1, to_dim=2, size=5
    )
    assert torch.equal(named, y)
    with pytest.raises(GroupError, match="choose an axis"):
        dsp.switch(x, mesh, from_dim=1, to_dim=2)
    with pytest.raises(GroupError, match="no process group named"):
        dsp.switch(x, "nonsense", from_dim=1, to_dim=2)
    other = dist.new_group([0])
    if dist.get_rank() != 0:
        with pytest.raises(GroupError, match="that this rank is in"):
            dsp.gather(x, other, dim=0)


def test_a_mesh_axis_a_group_and_a_name_are_groups() -> None:
    launch(4, groups_of_two_axes)


# -- what costs nothing, what is counted, what is refused ------------------------------------


def contiguous_slices_are_not_copied() -> None:
    x = torch.zeros(1, 2, 6, 4)
    counters = dsp.counters()
    y = dsp.switch(x, from_dim=1, to_dim=2, size=4, stage="in")
    dsp.switch(y, from_dim=2, to_dim=1, size=6, stage="out")
    dsp.gather(x, dim=1, size=4, stage="end")
    size = 4 * 6 * 4 * 4
    for stage, sent in (("in", size // 4), ("out", size // 4), ("end", size // 2)):
        assert counters.total(stage).sent == counters.total(stage).received == sent
        assert counters.total(stage).calls == 1
    assert [c.primitive for c in counters] == ["switch", "switch", "gather"]
    counters.reset()
    assert counters.total().calls == 0


def test_bytes_are_counted_by_stage_and_primitive() -> None:
    launch(2, contiguous_slices_are_not_copied)


def refused() -> None:
    x = torch.zeros(2, 3, 4)
    for options, words in (
        ({"from_dim": 1, "to_dim": 1}, "nothing to switch"),
        ({"from_dim": 3, "to_dim": 1}, "from_dim=3 does not exist"),
        ({"from_dim": 1, "to_dim": -4}, "to_dim=-4 does not exist"),
        ({"from_dim": 1, "to_dim": 2, "size": 9}, "pass size="),
    ):
        with pytest.raises(SwitchError, match=words):
            dsp.switch(x, **options)
    with pytest.raises(SwitchError, match="grad='mean'"):
        dsp.gather(x, dim=0, grad="mean")  # type: ignore[arg-type]
    with pytest.raises(SwitchError, match="bool has no meaning"):
        dsp.reduce_scatter(x.bool(), dim=0)
    with pytest.raises(SwitchError, match="dim=3 does not exist"):
        dsp.split(x, dim=3)


def test_what_does_not_fit_is_refused_before_anything_is_sent() -> None:
    launch(2, refused)


def one_rank_leaves() -> None:
    if dist.get_rank() == 1:
        return
    x = torch.zeros(1, 2, 4)
    with pytest.raises(
        CollectiveError, match=r"rank 0 of 2 .*switch in stage 'blocks.3' of \(1, 4, 4\)"
    ):
        dsp.switch(x, from_dim=1, to_dim=2, size=4, stage="blocks.3")


def test_a_dead_rank_is_an_error_that_names_the_stage() -> None:
    launch(2, one_rank_leaves, group_timeout=3)


def wrong_on_one_rank() -> None:
    x = torch.zeros(1, 2, 4)
    with pytest.raises(SwitchError if dist.get_rank() else CollectiveError):
        dsp.switch(x, from_dim=1, to_dim=2, size=4 - dist.get_rank())


def test_a_wrong_rank_does_not_hang_the_other() -> None:
    with pytest.raises(RankFailed):
        launch(2, fail_in_the_middle, group_timeout=3)
    launch(2, wrong_on_one_rank, group_timeout=3)


def fail_in_the_middle() -> None:
    if dist.get_rank():
        raise ValueError("on purpose")
    dsp.switch(torch.zeros(1, 2, 4), from_dim=1, to_dim=2, size=4)


def test_shards_are_what_the_operators_compute_symbolically() -> None:
    assert [shard_length(9, 8, r) for r in range(8)] == [2] + [1] * 7
