"""Debug mode: what ranks do differently becomes an error on all of them, and never a hang."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist

from perfkit import dsp
from perfkit.errors import CollectiveError, MismatchError, SwitchError
from tests.dist.launcher import launch

CHECK = {"PERFKIT_DSP_CHECK": "1", "PERFKIT_DSP_TIMEOUT": "3"}


def agreeing() -> tuple[int, ...]:
    x = torch.ones(2, 3 - dist.get_rank(), 4, requires_grad=True)
    y = dsp.switch(x, from_dim=1, to_dim=2, size=5, stage="a", async_op=True).wait()
    z = dsp.gather(y, dim=2, size=4, stage="b", grad="partial")
    z.sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 2.0))
    return tuple(z.shape)


def test_ranks_that_agree_notice_nothing() -> None:
    assert launch(2, agreeing, environment=CHECK) == [(2, 5, 4)] * 2


def other_shape() -> str:
    x = torch.ones(1, 2, 6 if dist.get_rank() == 1 else 4)
    with pytest.raises(MismatchError) as caught:
        dsp.switch(x, from_dim=1, to_dim=2, size=6, stage="blocks.7")
    return str(caught.value)


def test_another_shape_names_ranks_stage_and_shapes() -> None:
    for text in launch(3, other_shape, environment=CHECK):
        assert "rank 1: switch in stage 'blocks.7' of (1, 6, 6) float32" in text
        assert "of (1, 6, 4) float32" in text


def other_dtype_primitive_or_line() -> list[str]:
    rank = dist.get_rank()
    x = torch.ones(1, 2, 4)
    texts = []
    with pytest.raises(MismatchError) as caught:
        dsp.gather(x.double() if rank else x, dim=1, size=4)
    texts.append(str(caught.value))
    with pytest.raises(MismatchError) as caught:
        if rank:
            dsp.gather(x, dim=1, size=4)
        else:
            dsp.switch(x, from_dim=1, to_dim=2, size=4)
    texts.append(str(caught.value))
    with pytest.raises(MismatchError) as caught:
        if rank:
            dsp.gather(x, dim=1, size=4)
        else:
            dsp.gather(x, dim=1, size=4)
    texts.append(str(caught.value))
    return texts


def test_another_dtype_primitive_or_call_site_is_told() -> None:
    for dtype, primitive, line in launch(2, other_dtype_primitive_or_line, environment=CHECK):
        assert "float64" in dtype and "float32" in dtype
        assert "gather" in primitive and "switch" in primitive
        assert line.count("test_check.py:") == 2


def own_mistake() -> str:
    x = torch.ones(1, 3 if dist.get_rank() == 0 else 2, 4)
    kind = SwitchError if dist.get_rank() == 0 else MismatchError
    with pytest.raises(kind) as caught:
        dsp.switch(x, from_dim=1, to_dim=2, size=4)
    return str(caught.value)


def test_a_mistake_of_one_rank_reaches_the_others() -> None:
    mine, other = launch(2, own_mistake, environment=CHECK)
    assert "this rank holds 3 of the 4 indices" in mine
    assert "rank 0:" in other and "this rank holds 3 of the 4 indices" in other


def one_call_left_out() -> str:
    x = torch.ones(1, 2, 4)
    if dist.get_rank() == 1:
        time.sleep(5)
        return ""
    with pytest.raises(CollectiveError) as caught:
        dsp.switch(x, from_dim=1, to_dim=2, size=4, stage="late")
    return str(caught.value)


def test_a_call_left_out_is_an_error_within_the_timeout() -> None:
    text, _ = launch(2, one_call_left_out, environment=CHECK)
    assert "rank 0: switch in stage 'late' of (1, 4, 4)" in text
    assert "rank 1 did not come within 3 s" in text
