"""Attention as an operator of torch: opcheck, compile, autocast, checkpointing, refusals."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from torch.utils.checkpoint import checkpoint  # noqa: E402

from perfkit.errors import (  # noqa: E402
    DeviceError,
    DtypeError,
    GradientError,
    RankError,
    SizeError,
)
from perfkit.ops import attention  # noqa: E402


def inputs(dtype: torch.dtype = torch.float32, grad: bool = True) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 20, 3, 16).to(dtype).requires_grad_(grad) for _ in range(3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [False, True])
def test_opcheck(dtype: torch.dtype, biased: bool) -> None:
    q, k, v = (t.detach().transpose(1, 2).requires_grad_() for t in inputs(dtype))
    bias = torch.randn(3, 20, 20).to(dtype).requires_grad_() if biased else None
    mask = torch.rand(2, 1, 1, 20) > 0.2
    torch.library.opcheck(torch.ops.perfkit.attention, (q, k, v, mask, bias, True, 0.25))
    with torch.no_grad():
        out, lse = torch.ops.perfkit.attention(q, k, v, mask, bias, True, 0.25)
    detached = [None if t is None else t.detach() for t in (q, k, v, mask, bias)]
    args = (torch.randn_like(out), *detached, out, lse, True, 0.25, biased)
    torch.library.opcheck(torch.ops.perfkit.attention_backward, args)


def test_gradcheck_against_finite_differences_in_one_direction() -> None:
    q, k, v = inputs()
    bias = torch.randn(3, 20, 20, requires_grad=True)
    weight = torch.randn(2, 20, 3, 16)
    loss = (attention(q, k, v, bias=bias) * weight).sum()
    grads = torch.autograd.grad(loss, (q, k, v, bias))
    step = 1e-2
    for moved, grad in enumerate(grads):
        direction = torch.randn_like(grad)
        ends = []
        for sign in (step, -step):
            at = [t.detach() for t in (q, k, v, bias)]
            at[moved] = at[moved] + sign * direction
            ends.append((attention(*at[:3], bias=at[3]) * weight).sum().item())
        slope = (ends[0] - ends[1]) / (2 * step)
        assert math.isclose(slope, (grad * direction).sum().item(), rel_tol=2e-2, abs_tol=2e-2)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_full_graph(dynamic: bool) -> None:
    def block(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return attention(q * 2, k, v, causal=True).flatten(-2).sin()

    compiled = torch.compile(block, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for length in (20, 33):
        q, k, v = (torch.randn(2, length, 3, 16, requires_grad=True) for _ in range(3))
        wanted = block(q, k, v)
        found = compiled(q, k, v)
        torch.testing.assert_close(found, wanted)
        left = torch.autograd.grad(found.sum(), (q, k, v))
        right = torch.autograd.grad(wanted.sum(), (q, k, v))
        for a, b in zip(left, right, strict=True):
            torch.testing.assert_close(a, b)


def test_autocast() -> None:
    q, k, v = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attention(q, k, v)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert q.grad is not None and q.grad.dtype == torch.float32
    torch.testing.assert_close(out.float(), attention(q, k, v), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(reentrant: bool) -> None:
    q, k, v = inputs()
    plain = torch.autograd.grad(attention(q, k, v).sin().sum(), (q, k, v))
    out = checkpoint(lambda *a: attention(*a).sin(), q, k, v, use_reentrant=reentrant)
    out.sum().backward()
    for tensor, wanted in zip((q, k, v), plain, strict=True):
        assert torch.equal(tensor.grad, wanted)


def test_no_gradients_where_none_are_wanted() -> None:
    q, k, v = inputs(grad=False)
    assert not attention(q, k, v).requires_grad
    k.requires_grad_()
    attention(q, k, v).sum().backward()
    assert k.grad is not None


def test_meta_tensors_have_the_right_shape_and_strides() -> None:
    q, k, v = inputs(grad=False)
    found, wanted = attention(*(t.to("meta") for t in (q, k, v))), attention(q, k, v)
    assert (found.shape, found.stride()) == (wanted.shape, wanted.stride())


def shaped(*sizes: int) -> torch.Tensor:
    return torch.randn(sizes)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q": shaped(20, 16)}, RankError, "q has 2 dimensions"),
        ({"q": shaped(2, 20, 3, 16).double()}, DtypeError, "float64"),
        ({"k": shaped(2, 20, 3, 16).bfloat16()}, DtypeError, "k is torch.bfloat16, but q"),
        ({"k": shaped(3, 20, 3, 16)}, SizeError, "leading dimensions of k"),
        ({"k": shaped(2, 20, 3, 8)}, SizeError, "head dimension of k is 8"),
        ({"v": shaped(2, 21, 3, 16)}, SizeError, "v has"),
        ({"k": shaped(2, 20, 2, 16), "v": shaped(2, 20, 2, 16)}, SizeError, "no multiple"),
        ({"mask": torch.ones(20, 21).bool()}, SizeError, "does not broadcast"),
        ({"mask": torch.ones(20, 20).int()}, DtypeError, "mask is torch.int32"),
        ({"bias": torch.ones(20, 20).bool()}, DtypeError, "bias is torch.bool"),
        ({"bias": shaped(2, 2, 3, 20, 20)}, SizeError, "does not broadcast"),
        ({"mask": torch.randn(20, 20, requires_grad=True)}, GradientError, "as bias"),
        ({"layout": "DHS"}, RankError, "layout"),
    ],
)
def test_what_does_not_fit_is_refused(
    change: dict[str, object], error: type[Exception], message: str
) -> None:
    q, k, v = inputs(grad=False)
    with pytest.raises(error, match=message):
        attention(**({"q": q, "k": k, "v": v} | change))  # type: ignore[arg-type]


def test_large_head_dimensions_and_many_leading_ones_are_refused() -> None:
    wide = shaped(1, 4, 1, 257)
    with pytest.raises(SizeError, match="257"):
        attention(wide, wide, wide)
    deep = shaped(1, 1, 1, 1, 1, 4, 1, 8)
    with pytest.raises(RankError, match="leading"):
        attention(deep, deep, deep)


def test_another_device_is_refused() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no other device here")
    q = torch.randn(1, 4, 1, 8, device="cuda")
    with pytest.raises(DeviceError, match="cuda"):
        attention(q, q, q)
