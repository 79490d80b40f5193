"""``ops.attention`` on CUDA tensors against fp64, and as an operator of torch."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn.functional import scaled_dot_product_attention  # noqa: E402

from perfkit.errors import DeviceError, DtypeError, SizeError  # noqa: E402
from perfkit.ops import attention  # noqa: E402

DIMS = (32, 64, 72, 80, 96, 128)
DTYPES = (torch.bfloat16, torch.float16)
LENGTHS = [(1, 1), (7, 130), (128, 64), (129, 257), (200, 33), (512, 512)]


def reference(q: Any, k: Any, v: Any, added: Any, causal: bool, scale: float) -> Any:
    """``[B, H, S, D]`` in fp64; rows without keys are 0."""
    group = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(group, 1) for t in (k, v))
    s = (q @ k.transpose(-2, -1)) * scale
    if added is not None:
        s = s + added
    if causal:
        keep = torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).tril()
        s = s.masked_fill(~keep, -math.inf)
    weights = torch.softmax(s, -1)
    return torch.where(weights.isnan(), torch.zeros_like(weights), weights) @ v


def error(have: Any, want: Any) -> float:
    return ((have.double() - want).norm() / want.norm().clamp_min(1e-30)).item()


def check(
    q: Any, k: Any, v: Any, *, mask: Any = None, bias: Any = None, causal: bool = False,
    scale: float | None = None,
) -> None:  # fmt: skip
    """Errors of output and gradients at most 1.5 times those of torch's in the same dtype."""
    leaves = [t.detach().requires_grad_() for t in (q, k, v)]
    used = scale if scale is not None else 1 / math.sqrt(q.shape[-1])
    added: Any = None
    if mask is not None:
        added = mask if mask.is_floating_point() else torch.zeros_like(mask, dtype=q.dtype)
        if not mask.is_floating_point():
            added = added.masked_fill(~mask, -math.inf)
    if bias is not None:
        added = bias if added is None else added + bias
    exact = [t.detach().double().requires_grad_() for t in (q, k, v)]
    want = reference(*exact, None if added is None else added.double(), causal, used)
    grad = torch.randn_like(want).to(q.dtype)
    wants = [want, *torch.autograd.grad(want, exact, grad.double())]
    have = attention(*leaves, mask=mask, bias=bias, causal=causal, scale=scale, layout="HSD")
    haves = [have, *torch.autograd.grad(have, leaves, grad)]
    group = q.shape[1] // k.shape[1]
    peers = [t.detach().requires_grad_() for t in (q, k, v)]
    wide = [peers[0], *(t.repeat_interleave(group, 1) for t in peers[1:])]
    peer_mask = None if added is None else added.to(q.dtype)
    if causal and peer_mask is not None:
        keep = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
        peer_mask = peer_mask.expand(*q.shape[:2], *keep.shape).masked_fill(~keep, -math.inf)
    peer = scaled_dot_product_attention(
        *wide, attn_mask=peer_mask, is_causal=causal and peer_mask is None, scale=used
    )
    theirs = [peer, *torch.autograd.grad(peer, peers, grad)]
    floor = 2e-3 if q.dtype == torch.bfloat16 else 3e-4
    for name, a, b, exactly in zip(("out", "d_q", "d_k", "d_v"), haves, theirs, wants, strict=True):
        assert not a.isnan().any(), name
        allowed = max(1.5 * error(b, exactly), floor) if not b.isnan().any() else 2e-2
        assert error(a, exactly) <= allowed, f"{name}: {error(a, exactly)} above {allowed}"


def tensors(dtype: Any, dim: int, queries: int, keys: int, kv_heads: int = 2) -> list[Any]:
    torch.manual_seed(queries * 1000 + keys)
    shapes = [(2, 4, queries, dim), (2, kv_heads, keys, dim), (2, kv_heads, keys, dim)]
    return [torch.randn(shape, device="cuda").to(dtype) for shape in shapes]


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_parity(dim: int, dtype: Any, causal: bool) -> None:
    for queries, keys in LENGTHS:
        check(*tensors(dtype, dim, queries, keys), causal=causal)


@pytest.mark.parametrize("dim", [64, 72, 128])
@pytest.mark.parametrize("kind", ["padding", "added", "pairs", "bias", "scale"])
def test_general_kernels(dim: int, kind: str) -> None:
    q, k, v = tensors(torch.bfloat16, dim, 150, 210)
    arguments: dict[str, Any] = {
        "padding": {"mask": torch.rand(2, 1, 1, 210, device="cuda") > 0.3},
        "added": {"mask": torch.randn(1, 4, 150, 210, device="cuda", dtype=torch.bfloat16)},
        "pairs": {"mask": torch.rand(2, 4, 150, 210, device="cuda") > 0.5},
        "bias": {"bias": torch.randn(4, 150, 210, device="cuda"), "causal": True},
        "scale": {"scale": -0.2},
    }[kind]
    check(q, k, v, **arguments)


def test_gradient_of_a_broadcast_bias() -> None:
    q, k, v = tensors(torch.bfloat16, 64, 40, 50)
    bias = torch.randn(4, 40, 50, device="cuda", requires_grad=True)
    out = attention(q, k, v, bias=bias, layout="HSD")
    grad = torch.randn_like(out)
    (have,) = torch.autograd.grad(out, bias, grad)
    exact = bias.detach().double().requires_grad_()
    want = reference(q.double(), k.double(), v.double(), exact, False, 1 / 8)
    (wanted,) = torch.autograd.grad(want, exact, grad.double())
    assert error(have, wanted) < 2e-2


@pytest.mark.parametrize("view", ["transposed", "odd offset", "every other column"])
def test_strided_inputs_are_read_where_they_lie(view: str) -> None:
    def place(t: Any) -> Any:
        b, h, s, d = t.shape
        if view == "transposed":
            return t.transpose(1, 2).contiguous().transpose(1, 2)
        if view == "odd offset":
            return torch.empty(b, h, s, d + 3, device=t.device, dtype=t.dtype)[..., 3:].copy_(t)
        return torch.empty(b, h, s, 2 * d, device=t.device, dtype=t.dtype)[..., ::2].copy_(t)

    check(*map(place, tensors(torch.bfloat16, 72, 70, 90)))


def test_rows_without_keys_are_zero() -> None:
    q, k, v = tensors(torch.bfloat16, 64, 5, 70)
    mask = torch.ones(5, 70, dtype=torch.bool, device="cuda")
    mask[2] = False
    out = attention(q, k, v, mask=mask, layout="HSD")
    assert (out[:, :, 2] == 0).all() and (out[:, :, 1] != 0).any()


def test_nan_and_infinity_go_where_they_go_in_torch() -> None:
    q, k, v = tensors(torch.bfloat16, 64, 70, 70, kv_heads=4)
    q[0, 0, 3, 5], k[0, 1, 9, 2], v[1, 2, 4, 6] = math.nan, math.inf, math.inf
    have = attention(q, k, v, layout="HSD").isfinite()
    want = scaled_dot_product_attention(q.double(), k.double(), v.double()).isfinite()
    assert torch.equal(have, want)


@pytest.mark.parametrize("queries,keys", [(0, 5), (5, 0), (0, 0)])
def test_empty(queries: int, keys: int) -> None:
    q, k, v = (t.requires_grad_() for t in tensors(torch.bfloat16, 64, queries, keys))
    out = attention(q, k, v, layout="HSD")
    assert out.shape == q.shape and (out == 0).all()
    assert all((g == 0).all() for g in torch.autograd.grad(out.sum(), (q, k, v)))


def test_twice_is_the_same_bit_for_bit() -> None:
    leaves = [t.requires_grad_() for t in tensors(torch.bfloat16, 128, 500, 700)]
    runs = []
    for _ in range(3):
        out = attention(*leaves, layout="HSD")
        runs.append([out, *torch.autograd.grad(out, leaves, torch.ones_like(out))])
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


def test_a_graph_replays_on_new_contents() -> None:
    q, k, v = tensors(torch.bfloat16, 72, 130, 130)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        attention(q, k, v, layout="HSD")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = attention(q, k, v, layout="HSD")
    q.copy_(torch.randn_like(q))
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured, attention(q, k, v, layout="HSD"))


def test_the_callers_stream() -> None:
    q, k, v = tensors(torch.bfloat16, 64, 256, 256)
    want = attention(q, k, v, layout="HSD")
    torch.cuda.synchronize()
    late = torch.zeros_like(q)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        late.copy_(q)
        have = attention(late, k, v, layout="HSD")
    side.synchronize()
    assert torch.equal(have, want)


def test_operator() -> None:
    q, k, v = (t.requires_grad_() for t in tensors(torch.bfloat16, 64, 40, 40))
    torch.library.opcheck(torch.ops.perfkit.attention, (q, k, v, None, None, True, 0.125))
    compiled = torch.compile(lambda *t: attention(*t, layout="HSD"), fullgraph=True)
    assert torch.equal(compiled(q, k, v), attention(q, k, v, layout="HSD"))
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert attention(q.float(), k.float(), v.float(), layout="HSD").dtype == torch.bfloat16


def test_refusals() -> None:
    q, k, v = tensors(torch.bfloat16, 64, 4, 4)
    with pytest.raises(DeviceError, match="k is on cpu"):
        attention(q, k.cpu(), v, layout="HSD")
    with pytest.raises(DtypeError, match="bfloat16 or float16"):
        attention(q.float(), k.float(), v.float(), layout="HSD")
    with pytest.raises(SizeError, match="one of 32"):
        attention(q[..., :40], k[..., :40], v[..., :40], layout="HSD")
